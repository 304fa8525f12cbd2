"""`ptft pull --for serving`: what the service reads, once, and known for what it lacks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ptft.artifact import FolderFiles, read_model_info
from ptft.errors import ArtifactError, DigestError, HubError, UsageError
from ptft.hub import pull_model, push_model
from ptft.hub.placed import part_place
from ptft.onnx.served import absent_on_purpose, copy_served, read_parts, served_files
from ptft.verify import verify
from serving.model import verify_model
from serving.settings import Settings
from tests.support.hub_parts import REPO_ID, TOKEN, environment, folder_bytes, run
from tests.support.loopback_hub import LoopbackHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
FP32 = ("onnx/text_model.onnx", "onnx/vision_model.onnx")


@pytest.fixture
def published(hub: LoopbackHub, classifier_folder: Path, tmp_path: Path) -> Path:
    """A real model folder that is on the Hub."""
    push_model(classifier_folder, REPO_ID, tag="v1", licence="mit", endpoint=hub.url, token=TOKEN)
    hub.requests.clear()
    return classifier_folder


def pull(hub: LoopbackHub, dest: Path, cache: Path, *precision: str, serving: bool = True) -> Path:
    return pull_model(
        f"{REPO_ID}@v1",
        dest,
        serving=serving,
        precision=precision,
        endpoint=hub.url,
        cache_dir=cache,
    )


def fetched(hub: LoopbackHub) -> set[str]:
    return {
        call.path.partition("/resolve/")[2].partition("/")[2]
        for call in hub.calls("/resolve/", "GET")
    }


def test_only_what_the_service_reads_is_fetched_and_once(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    info = read_model_info(published)
    dest, cache = tmp_path / "pulled" / "model", tmp_path / "cache"
    assert pull(hub, dest, cache, "fp32") == dest
    kept = served_files(info, ["fp32"])
    assert set(folder_bytes(dest)) == {*kept, FolderFiles.INFO}
    assert FolderFiles.OPEN_CLIP_WEIGHTS not in fetched(hub) and set(FP32) <= fetched(hub)
    assert read_model_info(dest) == info  # the digest is that of the whole
    assert [path.name for path in dest.parent.iterdir()] == ["model"]
    assert not (dest / ".cache").exists()
    # one copy: the cache has the record and the card alone
    large = [p for p in cache.rglob("*") if p.is_file() and p.stat().st_size > 10_000]
    assert {p.resolve().name for p in large} <= {
        p.resolve().name for p in cache.rglob("*") if p.name in (FolderFiles.INFO, FolderFiles.CARD)
    }
    parts = read_parts(dest)
    assert parts is not None and parts.precision == ("fp32",)
    assert set(parts.absent) == set(info.files) - set(kept)
    verify_model(Settings(model=dest))
    hub.requests.clear()
    pull(hub, dest, cache, "fp32")
    assert fetched(hub) == set()


def test_verify_says_what_was_left_out_and_finds_what_was_lost(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    dest = pull(hub, tmp_path / "model", tmp_path / "cache", "fp32")
    links = verify([str(dest)])
    assert [link.name for link in links if link.state == "broken"] == []
    (files,) = [link for link in links if link.name == "files"]
    assert "pulled for serving without" in files.detail and "open_clip_model" in files.detail
    assert [link.name for link in links if link.name.startswith("golden")] == ["golden onnx fp32"]
    (dest / FolderFiles.TOKENIZER).unlink()
    broken = [link.detail for link in verify([str(dest)]) if link.state == "broken"]
    assert any("tokenizer.json: missing" in detail for detail in broken)
    (dest / FolderFiles.PARTS).write_text('{"for": "fun"}')
    broken = [link.detail for link in verify([str(dest)]) if link.state == "broken"]
    assert any(".pulled.json: damaged" in detail for detail in broken)


def test_a_folder_in_part_is_not_published_and_is_made_whole_by_a_pull(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    dest, cache = tmp_path / "model", tmp_path / "cache"
    pull(hub, dest, cache, "fp32")
    with pytest.raises(ArtifactError, match="pulled for serving, without"):
        push_model(dest, REPO_ID, endpoint=hub.url, token=TOKEN)
    hub.requests.clear()
    pull(hub, dest, cache)  # the precisions that it lacks
    assert fetched(hub) & set(FP32) == set()
    parts = read_parts(dest)
    assert parts is not None and "fp32" in parts.precision
    assert set(folder_bytes(dest)) == {*served_files(read_model_info(dest)), FolderFiles.INFO}
    pull(hub, dest, cache, serving=False)
    assert folder_bytes(dest) == folder_bytes(published) and read_parts(dest) is None
    assert absent_on_purpose(dest, read_model_info(dest)) == []
    hub.requests.clear()
    pull(hub, dest, cache, "fp32")  # a whole one has what the service reads
    assert fetched(hub) == set() and read_parts(dest) is None


def test_what_cannot_be_asked_for(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(UsageError, match=r"no precision 'fp8'; allowed: fp32"):
        pull(hub, tmp_path / "model", cache, "fp8")
    with pytest.raises(UsageError, match="--precision: goes with --for serving"):
        pull(hub, tmp_path / "model", cache, "fp32", serving=False)
    with pytest.raises(UsageError, match="needs a folder"):
        pull_model(REPO_ID, serving=True, endpoint=hub.url, cache_dir=cache)
    done = run(hub, tmp_path / "home", "pull", REPO_ID, tmp_path / "x", "--for", "training")
    assert done.returncode == 2 and "serving" in done.stderr
    assert not list(tmp_path.glob("model*")) and not list(tmp_path.glob(".*"))


def test_a_damaged_byte_and_a_cut_are_gone_on_from(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    dest, cache = tmp_path / "model", tmp_path / "cache"
    flip = hub.faults.corrupt(f"/{FP32[1]}")
    with pytest.raises(DigestError, match=r"vision_model.onnx: not the bytes"):
        pull(hub, dest, cache, "fp32")
    assert flip.fired == 1 and not dest.exists()
    hub.faults.status(f"/{FP32[1]}", 403, method="GET")
    with pytest.raises(HubError):
        pull(hub, dest, cache, "fp32")
    hub.requests.clear()
    pull(hub, dest, cache, "fp32")
    assert fetched(hub) == {FP32[1]}  # what was sound stands
    assert [path.name for path in tmp_path.iterdir() if "model" in path.name] == ["model"]


def test_offline_from_a_cache_that_has_it(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    assert run(hub, home, "pull", f"{REPO_ID}@v1").returncode == 0
    words = ("pull", f"{REPO_ID}@v1", tmp_path / "model", "--for", "serving")
    hub.requests.clear()
    done = run(hub, home, *words, "--precision", "fp32", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert hub.requests == [] and (tmp_path / "model" / FP32[0]).is_file()


def test_through_no_link(hub: LoopbackHub, published: Path, tmp_path: Path) -> None:
    victim, shared = tmp_path / "victim", tmp_path / "shared"
    victim.mkdir()
    shared.mkdir()
    (shared / ".model.partial").symlink_to(victim)
    with pytest.raises(ArtifactError, match="cannot be written"):
        pull(hub, shared / "model", tmp_path / "cache")
    (shared / ".model.partial").unlink()
    (shared / ".model.partial").mkdir()
    (shared / ".model.partial/onnx").symlink_to(victim)
    with pytest.raises(ArtifactError, match="cannot be written"):
        pull(hub, shared / "model", tmp_path / "cache")
    assert not list(victim.iterdir())


def test_two_at_once_are_one_after_the_other(
    hub: LoopbackHub, published: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "model"
    script = "from ptft.cli.main import main; main()"
    words = [sys.executable, "-c", script, "pull", REPO_ID, str(dest), "--for", "serving"]
    both = [
        subprocess.Popen(
            words, env=environment(hub, tmp_path / f"home{n}"), stderr=subprocess.PIPE, text=True
        )
        for n in range(2)
    ]
    told = [one.communicate(timeout=120)[1] for one in both]
    codes = sorted(one.returncode for one in both)
    assert codes == [0, 0], told
    assert verify_model(Settings(model=dest))[0] == read_model_info(published)
    assert not (tmp_path / ".model.partial").exists()


def test_who_waits_for_a_place_gets_the_one_that_has_the_name(tmp_path: Path) -> None:
    """Not the folder that whoever held it has put where it belongs."""
    dest = tmp_path / "model"
    wants, seen = threading.Event(), []

    def second() -> None:
        wants.set()
        with part_place(dest) as partial:
            seen.append((partial.exists(), [*partial.iterdir()], (dest / "first").exists()))

    waiting = threading.Thread(target=second)
    with part_place(dest) as partial:
        (partial / "first").touch()
        waiting.start()
        wants.wait()
        waiting.join(0.2)
        assert not seen
        partial.rename(dest)
    waiting.join(60)
    assert seen == [(True, [], True)]


def test_a_copy_for_the_image_is_the_same(classifier_folder: Path, tmp_path: Path) -> None:
    copy_served(classifier_folder, tmp_path / "model", ["fp32"])
    verify_model(Settings(model=tmp_path / "model"))
    assert read_parts(tmp_path / "model") is not None
    assert (tmp_path / "model" / FolderFiles.CARD).is_file()
    spoilt = tmp_path / "spoilt"
    shutil.copytree(classifier_folder, spoilt)
    (spoilt / FP32[0]).write_bytes(b"x")
    with pytest.raises(DigestError, match=r"text_model\.onnx"):
        copy_served(spoilt, tmp_path / "other", ["fp32"])
    with pytest.raises(UsageError, match="fp8"):
        copy_served(classifier_folder, tmp_path / "third", ["fp8"])
