"""A signed model is held to its key everywhere; a tampered or unsigned one is refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ptft.artifact import FolderFiles, read_model_info, write_atomic
from ptft.errors import SignatureError, UsageError
from ptft.hub import pull_model, push_model
from ptft.signing import check_signature, key_id, sign_folder, signed_files
from ptft.verify import verify
from serving.model import verify_model
from serving.settings import Settings
from tests.clients.environments import MODEL_SIGNING, cache_folder, find
from tests.support.hub_parts import ONNX, REPO_ID, TOKEN, make_folder, record
from tests.support.keys import make_key
from tests.support.loopback_hub import LoopbackHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
OTHERS = Path(__file__).with_name("signed_by_reference.json")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keys")
    for name, curve in (("mine", "prime256v1"), ("other", "secp384r1"), ("odd", "secp256k1")):
        make_key(place / f"{name}.pem", curve)
    make_key(place / "locked.pem", "secp521r1", "pass:sesame")
    return place


@pytest.fixture
def signed(keys: Path, tmp_path: Path) -> Path:
    folder = make_folder(tmp_path / "model")
    (folder / FolderFiles.BOM).write_text('{"bomFormat": "CycloneDX"}')
    sign_folder(folder, keys / "mine.pem")
    return folder


def check(folder: Path, key: Path) -> str:
    return check_signature(folder, read_model_info(folder), key)


def test_files_that_are_not_the_models_are_said_not_to_be_signed(
    signed: Path, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (signed / ".cache").mkdir()
    (signed / ".cache" / "of-a-client").write_text("x")
    sign_folder(signed, keys / "mine.pem")
    assert not caplog.records
    (signed / "onnx").mkdir(exist_ok=True)
    (signed / "onnx" / "notes.txt").write_text("x")
    sign_folder(signed, keys / "mine.pem")
    assert "not signed: 1 file " in caplog.text and "such as onnx/notes.txt" in caplog.text


def test_what_was_signed_is_held_and_what_was_changed_is_named(signed: Path, keys: Path) -> None:
    public = keys / "mine.pub"
    assert check(signed, public) == key_id(public)
    write_atomic(signed / FolderFiles.CARD, "edited on the Hub")
    check(signed, public)  # people edit the card
    with pytest.raises(SignatureError, match=r"model\.sig: not signed with .*other\.pub"):
        check(signed, keys / "other.pub")
    info = read_model_info(signed)
    record(signed, name="another", files=info.files)  # the digest does not cover the name
    with pytest.raises(SignatureError, match=r"ptft\.json: changed since it was signed"):
        check(signed, public)
    (signed / ONNX).write_bytes(b"backdoor")
    record(signed)
    with pytest.raises(SignatureError, match=r"onnx/text_model\.onnx: changed since"):
        check(signed, public)
    sign_folder(signed, keys / "mine.pem")
    check(signed, public)
    (signed / "extra.json").write_text("{}")
    record(signed)
    with pytest.raises(SignatureError, match=r"extra\.json: not among the files that were signed"):
        check(signed, public)
    (signed / "extra.json").unlink()
    (signed / "recipe.yaml").unlink()
    record(signed)
    with pytest.raises(SignatureError, match=r"(recipe\.yaml: signed, and not)|(ptft\.json)"):
        check(signed, public)
    (signed / FolderFiles.SIGNATURE).unlink()
    with pytest.raises(SignatureError, match=r"model \(m\): not signed: it has no model\.sig"):
        check(signed, public)


@pytest.mark.parametrize("name", [FolderFiles.BOM, "payload", "signature", "keys"])
def test_a_bundle_that_somebody_turned(signed: Path, keys: Path, name: str) -> None:
    path = signed / FolderFiles.SIGNATURE
    bundle = json.loads(path.read_text())
    match name:
        case FolderFiles.BOM:
            (signed / name).write_text("{}")
        case "payload":
            content = bundle["dsseEnvelope"]["payload"]
            bundle["dsseEnvelope"]["payload"] = content[:-8] + "AAAA" + content[-4:]
        case "signature":
            bundle["dsseEnvelope"]["signatures"] *= 2
        case "keys":
            bundle["verificationMaterial"] = {}
            bundle["dsseEnvelope"]["payloadType"] = "text/plain"
    path.write_text(json.dumps(bundle))
    with pytest.raises(SignatureError):
        check(signed, keys / "mine.pub")
    bundle["mediaType"] = "x" * 100_000
    bundle["dsseEnvelope"]["signatures"] = bundle["dsseEnvelope"]["signatures"][:1]
    path.write_text(json.dumps(bundle))
    with pytest.raises(SignatureError) as caught:
        check(signed, keys / "mine.pub")
    assert len(str(caught.value)) < 1000
    for odd in ("", "[]", "{", '{"dsseEnvelope": 3}', "[" * 100_000):
        path.write_text(odd)
        with pytest.raises(SignatureError):
            check(signed, keys / "mine.pub")


def test_keys(signed: Path, keys: Path, tmp_path: Path) -> None:
    for key, words in (
        (keys / "odd.pem", "secp256k1; allowed: a key of the curve P-256"),
        (keys / "none.pem", "no such file"),
        (keys / "mine.pub", "no private key"),
        (keys / "locked.pem", "no private key that can be read"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            sign_folder(signed, key)
        assert "\n" not in str(caught.value) and str(key) in str(caught.value)
    with pytest.raises(UsageError, match="no private key that can be read"):
        sign_folder(signed, keys / "locked.pem", "guess")
    sign_folder(signed, keys / "locked.pem", "sesame")
    check(signed, keys / "locked.pub")
    with pytest.raises(UsageError, match="a private key, which stays with who signs"):
        check(signed, keys / "mine.pem")


def test_a_push_brings_it_and_a_pull_holds_it(
    hub: LoopbackHub, signed: Path, keys: Path, tmp_path: Path
) -> None:
    push_model(signed, REPO_ID, tag="v1", endpoint=hub.url, token=TOKEN)
    places = {"endpoint": hub.url, "cache_dir": tmp_path / "cache"}
    pulled = pull_model(f"{REPO_ID}@v1", tmp_path / "a", signed_by=keys / "mine.pub", **places)
    assert check(pulled, keys / "mine.pub") and (pulled / FolderFiles.BOM).is_file()
    assert push_model(pulled, REPO_ID, endpoint=hub.url, token=TOKEN).sent == {}
    hub.requests.clear()
    for target in (f"{REPO_ID}@v1", REPO_ID):
        with pytest.raises(SignatureError, match=f"{REPO_ID}@.*not signed with .*other"):
            pull_model(target, tmp_path / "b", signed_by=keys / "other.pub", **places)
    unsigned = make_folder(tmp_path / "unsigned", 2)
    push_model(unsigned, REPO_ID, endpoint=hub.url, token=TOKEN)
    hub.requests.clear()  # the signature of the version before does not stay
    with pytest.raises(SignatureError, match=f"{REPO_ID}@main: not signed"):
        pull_model(f"{REPO_ID}@main", tmp_path / "b", signed_by=keys / "mine.pub", **places)
    assert hub.calls(f"/{ONNX}") == [] and not (tmp_path / "b").exists()


def test_verify_and_the_service_hold_it(
    classifier_folder: Path, keys: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(classifier_folder, folder)
    settings = Settings(model=folder, model_signed_by=keys / "mine.pub")
    with pytest.raises(SignatureError, match="not signed"):
        verify_model(settings)
    sign_folder(folder, keys / "mine.pem")
    verify_model(settings)
    with pytest.raises(SignatureError, match="not signed with"):
        verify_model(Settings(model=folder, model_signed_by=keys / "other.pub"))

    def link(key: Path | None) -> str:
        links = verify([str(folder)], torch=False, signed_by=key)
        return next(one.state for one in links if one.name == "signature")

    assert link(None) == "unchecked"
    assert link(keys / "mine.pub") == "ok"
    assert link(keys / "other.pub") == "broken"
    (folder / FolderFiles.SIGNATURE).unlink()
    assert link(keys / "mine.pub") == "broken"


def test_what_the_reference_signed(tmp_path: Path) -> None:
    """A bundle that model_signing 1.1.1 made of a folder of three files, with a key made for it."""
    values = json.loads(OTHERS.read_text())
    key, path = tmp_path / "key.pub", tmp_path / FolderFiles.SIGNATURE
    key.write_text(values["public_key"])
    path.write_text(json.dumps(values["bundle"]))
    signed = signed_files(path, key, where="it")
    assert sorted(signed) == ["onnx/text_model.onnx", "ptft.json"]
    assert signed["onnx/text_model.onnx"].startswith("ba7816bf")  # sha256 of "abc"


def test_the_reference_verifies_it_and_signs_what_is_verified_here(
    signed: Path, keys: Path
) -> None:
    environment = find(MODEL_SIGNING, cache_folder())
    if environment is None:
        pytest.skip("no environment of model_signing: run python -m tests.clients")

    def reference(verb: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [environment / "bin" / "python", "-m", "model_signing", verb, "key", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    bundle = ("--signature", signed / FolderFiles.SIGNATURE)
    mine = ("--public_key", keys / "mine.pub")
    done = reference("verify", signed, *bundle, *mine)
    assert done.returncode == 0, done.stdout + done.stderr
    (signed / FolderFiles.CARD).write_text("edited")
    assert reference("verify", signed, *bundle, *mine).returncode == 0
    ignored = ("--ignore-paths", signed / FolderFiles.CARD)
    done = reference("sign", signed, *bundle, *ignored, "--private_key", keys / "mine.pem")
    assert done.returncode == 0, done.stdout + done.stderr
    check(signed, keys / "mine.pub")
    (signed / ONNX).write_bytes(b"x")
    assert reference("verify", signed, *bundle, *mine).returncode != 0
