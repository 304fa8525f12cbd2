"""A pull gives the bytes that were pushed, or nothing and a line that says why."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from ptft.artifact import hash_files, read_model_info
from ptft.errors import ArtifactError, DigestError, HubError, UsageError
from ptft.hub import pull_model, push_model
from tests.support.hub_parts import (
    COMMAND,
    ONNX,
    READ_TOKEN,
    REPO_ID,
    TOKEN,
    WEIGHTS,
    environment,
    folder_bytes,
    make_folder,
    record,
    run,
)
from tests.support.loopback_hub import LoopbackHub

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def folder(hub: LoopbackHub, tmp_path: Path) -> Path:
    """A model folder that is on the Hub as v1."""
    folder = make_folder(tmp_path / "model")
    push_model(folder, REPO_ID, tag="v1", endpoint=hub.url, token=TOKEN)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def commit(hub: LoopbackHub, **files: bytes) -> None:
    """Files put there by somebody who does not use ptft."""
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    HfApi(hub.url, token=TOKEN).create_commit(REPO_ID, operations, commit_message="by hand")


def refused(
    hub: LoopbackHub, cache: Path, kind: type[Exception], target: str = REPO_ID, **options: Any
) -> str:
    """The one line of a pull that fails."""
    with pytest.raises(kind) as caught:
        pull_model(target, endpoint=hub.url, cache_dir=cache, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_by_branch_tag_and_commit(hub: LoopbackHub, folder: Path, cache: Path) -> None:
    two = make_folder(folder.parent / "two", 2)
    later = push_model(two, REPO_ID, endpoint=hub.url, token=TOKEN)
    first = hub.repos[REPO_ID].refs["refs/tags/v1"]
    for target, expected, oid in (
        (f"{REPO_ID}@v1", folder, first),
        (f"{REPO_ID}@{first}", folder, first),
        (f"{REPO_ID}@main", two, later.commit),
        (REPO_ID, two, later.commit),
    ):
        pulled = pull_model(target, endpoint=hub.url, cache_dir=cache)
        assert pulled.name == oid and folder_bytes(pulled) == folder_bytes(expected)
        assert read_model_info(pulled).digest == read_model_info(expected).digest
    assert (pulled / "README.md").read_bytes() == hub.content(REPO_ID, "README.md")


def test_a_second_pull_asks_for_no_file(hub: LoopbackHub, folder: Path, cache: Path) -> None:
    pull_model(REPO_ID, endpoint=hub.url, cache_dir=cache)
    hub.requests.clear()
    pull_model(REPO_ID, endpoint=hub.url, cache_dir=cache)
    assert [call.path for call in hub.requests] == [f"/api/models/{REPO_ID}"]


def test_to_a_folder(hub: LoopbackHub, folder: Path, cache: Path, tmp_path: Path) -> None:
    dest = tmp_path / "deep/er/copy"
    assert pull_model(REPO_ID, dest, endpoint=hub.url, cache_dir=cache) == dest
    assert folder_bytes(dest) == folder_bytes(folder) and (dest / "README.md").is_file()
    assert not any(path.is_symlink() for path in dest.rglob("*"))
    assert [path.name for path in dest.parent.iterdir()] == ["copy"]
    stamp = (dest / WEIGHTS).stat().st_mtime_ns
    pull_model(REPO_ID, dest, endpoint=hub.url, cache_dir=cache)  # it is there already
    assert (dest / WEIGHTS).stat().st_mtime_ns == stamp
    again = push_model(dest, REPO_ID, endpoint=hub.url, token=TOKEN)
    assert again.sent == {}  # what was pulled is what is there, card included


def test_a_folder_that_holds_something_else(
    hub: LoopbackHub, folder: Path, cache: Path, tmp_path: Path
) -> None:
    other = make_folder(tmp_path / "other", 2)
    before = folder_bytes(other)
    assert "holds another model" in refused(hub, cache, UsageError, dest=other)
    (other / WEIGHTS).write_bytes(b"")
    assert "holds another model" in refused(hub, cache, UsageError, dest=other)
    assert folder_bytes(other) == {**before, WEIGHTS: b""}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/x").touch()
    hub.requests.clear()
    for taken in ("notes", "notes/x"):
        assert "holds something else" in refused(hub, cache, UsageError, dest=tmp_path / taken)
    assert hub.requests == []
    (tmp_path / "empty").mkdir()
    pull_model(REPO_ID, tmp_path / "empty", endpoint=hub.url, cache_dir=cache)
    (tmp_path / "empty" / WEIGHTS).write_bytes(b"damaged")
    assert WEIGHTS in refused(hub, cache, DigestError, dest=tmp_path / "empty")


def test_only_recorded_files_are_fetched(hub: LoopbackHub, folder: Path, cache: Path) -> None:
    commit(hub, **{"pytorch_model.bin": b"\0pickle", "code.py": b"x", "extra.json": b"{}"})
    pulled = pull_model(REPO_ID, endpoint=hub.url, cache_dir=cache)
    assert folder_bytes(pulled) == folder_bytes(folder)
    for name in ("pytorch_model.bin", "code.py", "extra.json", ".gitattributes"):
        assert hub.calls(f"/{name}") == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pytorch_model.bin", "may run code"),
        ("modeling.py", "allowed: .json"),
        ("../outside.json", "no plain file name"),
        ("/etc/x.json", "no plain file name"),
        ("a/./b.json", "no plain file name"),
        ("a\\b.json", "no plain file name"),
        (".hidden.json", "no plain file name"),
    ],
)
def test_names_that_ptft_would_not_write(
    hub: LoopbackHub, folder: Path, cache: Path, tmp_path: Path, name: str, words: str
) -> None:
    evil = make_folder(tmp_path / "evil")
    record(evil, files={**hash_files(evil), name: {"sha256": "0" * 64, "size": 1}})
    commit(hub, **{"ptft.json": (evil / "ptft.json").read_bytes()})
    hub.requests.clear()
    message = refused(hub, cache, ArtifactError, dest=tmp_path / "dest")
    assert words in message and repr(name)[1:-1] in message
    assert hub.calls(f"/{WEIGHTS}") == [] and not (tmp_path / "dest").exists()


@pytest.mark.parametrize("name", [WEIGHTS, ONNX, "recipe.yaml", "ptft.json", "README.md"])
def test_a_flipped_byte_is_refused_and_the_next_pull_succeeds(
    hub: LoopbackHub, folder: Path, cache: Path, tmp_path: Path, name: str
) -> None:
    flip = hub.faults.corrupt(f"/{name}")
    message = refused(hub, cache, DigestError, f"{REPO_ID}@v1", dest=tmp_path / "dest")
    assert name in message and f"{REPO_ID}@v1" in message and flip.fired == 1
    assert not (tmp_path / "dest").exists()
    hub.requests.clear()
    pull_model(REPO_ID, tmp_path / "dest", endpoint=hub.url, cache_dir=cache)
    assert folder_bytes(tmp_path / "dest") == folder_bytes(folder)
    assert len(hub.calls(f"/{name}", "GET")) == 1
    if name == "README.md":  # found before the large files were asked for
        return
    assert hub.calls("/README.md", "GET") == []  # what was sound is not fetched again


def test_a_byte_that_flips_in_the_cache(hub: LoopbackHub, folder: Path, cache: Path) -> None:
    for name in (*read_model_info(folder).files, "ptft.json", "README.md"):
        pulled = pull_model(REPO_ID, endpoint=hub.url, cache_dir=cache)
        content = bytearray((pulled / name).read_bytes())
        content[len(content) // 2] ^= 4
        (pulled / name).resolve().write_bytes(content)
        assert name in refused(hub, cache, DigestError)


def test_a_file_that_somebody_replaced(hub: LoopbackHub, folder: Path, cache: Path) -> None:
    commit(hub, **{"recipe.yaml": b"seed: 7\n"})
    assert "recipe.yaml" in refused(hub, cache, DigestError)
    commit(hub, **{WEIGHTS: b"\0others", "recipe.yaml": (folder / "recipe.yaml").read_bytes()})
    assert "replaced on the Hub" in refused(hub, cache, DigestError)
    HfApi(hub.url, token=TOKEN).delete_file(WEIGHTS, REPO_ID)
    assert "not on the Hub" in refused(hub, cache, DigestError)


def test_an_interrupted_pull_goes_on(
    hub: LoopbackHub,
    folder: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.faults.status(f"/{WEIGHTS}", 403, method="GET")
    refused(hub, cache, HubError, dest=tmp_path / "dest")
    assert not (tmp_path / "dest").exists()
    hub.requests.clear()
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # 10 MB by default
    cut = hub.faults.cut(f"/{WEIGHTS}", 300_000, method="GET")
    pull_model(REPO_ID, tmp_path / "dest", endpoint=hub.url, cache_dir=cache)
    assert folder_bytes(tmp_path / "dest") == folder_bytes(folder) and cut.fired == 1
    fetched = [(c.path.rsplit("/", 1)[-1], c.headers.get("range")) for c in hub.calls("", "GET")]
    files = [entry for entry in fetched if "." in entry[0]]
    assert files == [(WEIGHTS, None), (WEIGHTS, "bytes=300000-")]


def test_who_may_not_pull(hub: LoopbackHub, folder: Path, cache: Path) -> None:
    api = HfApi(hub.url, token=TOKEN)
    hub.add_token("hf_stranger_secret", "stranger")
    message = refused(hub, cache, HubError, token="hf_mistyped_secret")
    assert "not valid" in message and "secret" not in message
    api.update_repo_settings(REPO_ID, gated="manual")
    assert "ask for access" in refused(hub, cache, HubError, token="hf_stranger_secret")
    assert "there is no token" in refused(hub, cache, HubError)
    api.update_repo_settings(REPO_ID, gated=False, private=True)
    hidden = refused(hub, cache, HubError, token="hf_stranger_secret")
    assert "this token may not see it" in hidden and "secret" not in hidden
    assert pull_model(REPO_ID, endpoint=hub.url, cache_dir=cache, token=READ_TOKEN)


def test_what_does_not_exist(hub: LoopbackHub, folder: Path, cache: Path) -> None:
    assert "no such repository" in refused(hub, cache, HubError, "tester/nothing", token=TOKEN)
    message = refused(hub, cache, HubError, f"{REPO_ID}@v11")
    assert "no revision 'v11'" in message and "did you mean 'v1'?" in message
    assert "0000" in refused(hub, cache, HubError, f"{REPO_ID}@{'0' * 40}")
    assert "allowed: main, v1" in refused(hub, cache, HubError, f"{REPO_ID}@elsewhere")
    for target in ("model", "a/b/c", "org/model:split", "../x/y"):
        assert "org/name" in refused(hub, cache, UsageError, target)


def test_a_repository_of_another_kind(hub: LoopbackHub, folder: Path, cache: Path) -> None:
    HfApi(hub.url, token=TOKEN).delete_file("ptft.json", REPO_ID)
    message = refused(hub, cache, ArtifactError)
    assert f"{REPO_ID}@" in message and "no ptft.json" in message
    commit(hub, **{"ptft.json": b'{"format": 99}'})
    assert "format 99" in refused(hub, cache, ArtifactError)


def test_without_the_network(hub: LoopbackHub, folder: Path, cache: Path) -> None:
    pulled = pull_model(f"{REPO_ID}@v1", endpoint=hub.url, cache_dir=cache)
    with LoopbackHub() as gone:
        url = gone.url
    assert pull_model(f"{REPO_ID}@v1", endpoint=url, cache_dir=cache) == pulled
    with pytest.raises(HubError, match=f"cannot reach {url}"):
        pull_model(f"{REPO_ID}@v2", endpoint=url, cache_dir=cache)


def test_the_command_online_and_offline(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    missing = run(hub, home, "pull", REPO_ID, HF_HUB_OFFLINE="1")
    assert missing.returncode == 1 and missing.stdout == ""
    assert "HF_HUB_OFFLINE is set" in missing.stderr and missing.stderr.count("\n") == 1
    online = run(hub, home, "pull", f"{REPO_ID}@v1")
    assert online.returncode == 0, online.stderr
    assert folder_bytes(Path(online.stdout.rstrip("\n"))) == folder_bytes(folder)
    hub.requests.clear()
    offline = run(hub, home, "pull", f"{REPO_ID}@v1", tmp_path / "out", HF_HUB_OFFLINE="1")
    assert offline.stdout == f"{tmp_path / 'out'}\n" and hub.requests == []
    assert folder_bytes(tmp_path / "out") == folder_bytes(folder)


def test_a_full_disk(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    limit = 200_000  # bytes; less than the weights, more than the rest
    done = subprocess.run(
        [*COMMAND, "pull", REPO_ID, str(tmp_path / "out")],
        env=environment(hub, tmp_path / "home"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert "the disk is full" in done.stderr and "Traceback" not in done.stderr


def test_a_model_that_does_not_run_within_bounds_is_not_given(
    hub: LoopbackHub, cache: Path, tmp_path: Path
) -> None:
    """All of its bytes are the recorded ones: it is run once, elsewhere, before it has a place."""
    folder = make_folder(tmp_path / "whole", **{"onnx/vision_model.onnx": b"\0" * 100})
    record(folder, preprocess={"size": 32})
    push_model(folder, REPO_ID, endpoint=hub.url, token=TOKEN)
    told = refused(hub, cache, ArtifactError, dest=tmp_path / "there")
    assert "tokenizer.json: ptft.json does not record it" in told
    assert not (tmp_path / "there").exists()


def test_a_pull_writes_through_no_link(
    hub: LoopbackHub, folder: Path, cache: Path, tmp_path: Path
) -> None:
    """In a folder that others may write to, the name of an unfinished pull can be foreseen."""
    victim = tmp_path / "victim"
    victim.mkdir()
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / f".pulled.{os.getpid()}.partial").symlink_to(victim)
    told = refused(hub, cache, ArtifactError, dest=shared / "pulled")
    assert "cannot be written" in told and not list(victim.iterdir())
