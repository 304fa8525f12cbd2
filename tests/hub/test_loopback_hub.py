"""The loopback Hub is held against the real huggingface_hub client, and its ids against git's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RevisionNotFoundError,
)

from tests.support.hub_client import (
    FILES,
    REPO_ID,
    WEIGHTS,
    api,
    client,
    failing_status,
    hub,
    push,
)
from tests.support.loopback_hub import LoopbackHub

__all__ = ["api", "hub"]  # fixtures

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_create_delete_and_settings(hub: LoopbackHub) -> None:
    api = client(hub)
    assert api.whoami()["name"] == "tester"
    url = api.create_repo(REPO_ID, private=True)
    assert url.repo_id == REPO_ID and str(url) == f"{hub.url}/{REPO_ID}"
    with pytest.raises(HfHubHTTPError) as taken:
        api.create_repo(REPO_ID)
    assert failing_status(taken) == 409
    api.create_repo(REPO_ID, exist_ok=True)
    assert api.model_info(REPO_ID).private is True
    api.update_repo_settings(REPO_ID, private=False, gated="manual")
    info = api.model_info(REPO_ID)
    assert (info.private, info.gated) == (False, "manual")
    assert [item.rfilename for item in info.siblings or []] == [".gitattributes"]
    api.delete_repo(REPO_ID)
    assert not api.repo_exists(REPO_ID)
    assert api.create_repo("org/data", repo_type="dataset").repo_type == "dataset"
    assert api.dataset_info("org/data").id == "org/data"


def test_one_commit_with_small_and_lfs_files(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    first = api.model_info(REPO_ID).sha
    commit = push(api, parent_commit=first)
    assert [c.id for c in hub.repos[REPO_ID].history()] == [commit.oid, first]
    assert hub.content(REPO_ID, "onnx/text_model.onnx") == WEIGHTS
    assert hub.bytes_received == len(WEIGHTS)
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()

    # git's own ids: of a small file, and of the pointer that stands for an LFS file
    def git_id(content: bytes) -> str:
        run = subprocess.run(
            ["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True
        )
        return run.stdout.decode().strip()

    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 10240\n"
    info = api.model_info(REPO_ID, files_metadata=True)
    found = {item.rfilename: item for item in info.siblings or []}
    assert found["config.json"].blob_id == git_id(FILES["config.json"])
    assert found["onnx/text_model.onnx"].blob_id == git_id(pointer.encode())
    lfs = found["onnx/text_model.onnx"].lfs
    assert lfs and (lfs.size, lfs.sha256, lfs.pointer_size) == (10240, sha256, len(pointer))
    assert info.card_data and info.card_data.license == "mit"

    folder = api.snapshot_download(REPO_ID, cache_dir=tmp_path)
    for path, content in FILES.items():
        assert Path(folder, path).read_bytes() == content


def test_a_second_push_sends_nothing_and_makes_no_commit(hub: LoopbackHub, api: HfApi) -> None:
    oid = push(api).oid
    hub.requests.clear()
    assert push(api).oid == oid
    assert hub.bytes_received == 0 and len(hub.repos[REPO_ID].history()) == 2


def test_objects_uploaded_before_an_interruption_are_not_sent_again(
    hub: LoopbackHub, api: HfApi
) -> None:
    hub.faults.status("/commit/", 500)
    with pytest.raises(HfHubHTTPError) as interrupted:
        push(api)
    assert failing_status(interrupted) == 500
    assert hub.bytes_received == len(WEIGHTS) and len(hub.repos[REPO_ID].history()) == 1
    hub.requests.clear()
    push(api)
    assert hub.bytes_received == 0 and hub.content(REPO_ID, "onnx/text_model.onnx") == WEIGHTS


def test_a_lost_reply_leaves_a_commit_that_the_next_push_finds(
    hub: LoopbackHub, api: HfApi
) -> None:
    hub.faults.lose_reply("/commit/")
    with pytest.raises(Exception, match="disconnected"):
        push(api)
    assert len(hub.repos[REPO_ID].history()) == 2
    assert push(api).oid == hub.repos[REPO_ID].head().id


def test_a_cut_upload_stores_nothing_and_is_sent_again(hub: LoopbackHub, api: HfApi) -> None:
    cut = hub.faults.cut("/lfs-upload/", 1)
    push(api)  # the client tries again by itself
    puts = hub.calls("/lfs-upload/", "PUT")
    assert cut.fired == 1 and [call.status for call in puts] == [None, 200]
    assert hub.content(REPO_ID, "onnx/text_model.onnx") == WEIGHTS


def test_wrong_content_is_not_stored(hub: LoopbackHub, api: HfApi) -> None:
    oid = hashlib.sha256(WEIGHTS).hexdigest()
    batch = get_session().post(
        f"{hub.url}/{REPO_ID}.git/info/lfs/objects/batch",
        headers={"authorization": "Bearer hf_test"},
        json={"operation": "upload", "objects": [{"oid": oid, "size": len(WEIGHTS)}]},
    )
    href = batch.json()["objects"][0]["actions"]["upload"]["href"]
    assert get_session().put(href, content=b"x" + WEIGHTS[1:]).status_code == 400
    assert hub.repos[REPO_ID].objects == set()


def test_a_commit_is_whole_or_not_at_all(hub: LoopbackHub, api: HfApi) -> None:
    first = push(api)
    operations: list[Any] = [
        CommitOperationAdd("config.json", b"{}"),
        CommitOperationDelete("missing.json"),
    ]
    with pytest.raises(EntryNotFoundError):
        api.create_commit(REPO_ID, operations, commit_message="half")
    assert hub.repos[REPO_ID].head().id == first.oid
    api.create_commit(
        REPO_ID,
        [CommitOperationDelete("onnx/"), CommitOperationDelete("config.json")],
        commit_message="delete",
    )
    assert api.list_repo_files(REPO_ID) == [".gitattributes", "README.md"]


def test_parent_commit_conflict(hub: LoopbackHub, api: HfApi) -> None:
    first = api.model_info(REPO_ID).sha
    push(api, parent_commit=first)
    with pytest.raises(HfHubHTTPError) as conflict:
        push(api, {"config.json": b"{}"}, parent_commit=first)
    assert failing_status(conflict) == 412
    assert hub.content(REPO_ID, "config.json") == FILES["config.json"]


def test_card_metadata_is_checked(api: HfApi) -> None:
    with pytest.raises(ValueError, match="Invalid metadata"):
        push(api, {"README.md": b"---\nlicense: [mit\n---\n"})
    with pytest.raises(ValueError, match="Invalid metadata"):
        push(api, {"README.md": b"---\nmit\n---\n"})
    with pytest.warns(UserWarning, match="empty or missing"):
        push(api, {"README.md": b"# no metadata\n"})


def test_download_by_tag_commit_and_branch(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    one = push(api, {"config.json": b"1"}).oid
    api.create_tag(REPO_ID, tag="v1.0")
    api.create_branch(REPO_ID, branch="side/way", revision="v1.0")
    two = push(api, {"config.json": b"2"}).oid
    three = push(api, {"config.json": b"3"}, revision="side/way").oid
    for rev, content, oid in (
        ("main", b"2", two),
        ("v1.0", b"1", one),
        ("side/way", b"3", three),
        (one, b"1", one),
    ):
        path = Path(api.hf_hub_download(REPO_ID, "config.json", revision=rev, cache_dir=tmp_path))
        assert path.read_bytes() == content and path.parent.name == oid
        assert Path(api.snapshot_download(REPO_ID, revision=rev, cache_dir=tmp_path)).name == oid
    refs = api.list_repo_refs(REPO_ID)
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1.0": one}
    assert {ref.name: ref.target_commit for ref in refs.branches} == {
        "main": two,
        "side/way": three,
    }
    with pytest.raises(HfHubHTTPError) as taken:
        api.create_tag(REPO_ID, tag="v1.0")
    assert failing_status(taken) == 409
    api.create_tag(REPO_ID, tag="v1.0", exist_ok=True)
    assert hub.repos[REPO_ID].head("v1.0").id == one
    api.delete_tag(REPO_ID, tag="v1.0")
    api.delete_branch(REPO_ID, branch="side/way")
    for gone in ("v1.0", "side/way"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info(REPO_ID, revision=gone)


def test_tree_folders_and_paths_info(hub: LoopbackHub, api: HfApi) -> None:
    commit = push(api, {f"deep/er/{n}.txt": b"%d" % n for n in range(5)} | {"a.txt": b"a"})
    names = ["a.txt", "deep", "deep/er", *(f"deep/er/{n}.txt" for n in range(5))]
    tree = [item.path for item in api.list_repo_tree(REPO_ID, recursive=True)]
    assert tree == [".gitattributes", *names]
    assert [item.path for item in api.list_repo_tree(REPO_ID)] == [".gitattributes", *names[:2]]
    inside = list(api.list_repo_tree(REPO_ID, "deep/er", expand=True))
    assert [item.path for item in inside] == names[3:]
    push(api, {"deep/er/3.txt": b"changed"})
    info = api.get_paths_info(REPO_ID, ["deep/er/2.txt", "nowhere", "deep"], expand=True)
    assert [item.path for item in info] == ["deep/er/2.txt", "deep"]
    assert info[0].last_commit and info[0].last_commit.oid == commit.oid
    assert info[1].last_commit and info[1].last_commit.oid == hub.repos[REPO_ID].head().id
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(REPO_ID, "nowhere"))


def test_ranges_and_headers(hub: LoopbackHub, api: HfApi) -> None:
    commit = push(api)
    url = f"{hub.url}/{REPO_ID}/resolve/main/onnx/text_model.onnx"
    for asked, start, end in (("3-9", 3, 10), ("10000-", 10000, 10240), ("-5", 10235, 10240)):
        part = get_session().get(url, headers={"Range": f"bytes={asked}"})
        assert part.status_code == 206 and part.content == WEIGHTS[start:end]
        assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/10240"
    assert get_session().get(url, headers={"Range": "bytes=10240-"}).status_code == 416
    head = get_session().head(url)
    assert head.headers["X-Repo-Commit"] == commit.oid and head.content == b""
    assert head.headers["ETag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert head.headers["X-Linked-Etag"] == head.headers["ETag"]
    assert head.headers["X-Linked-Size"] == head.headers["Content-Length"] == "10240"


def test_a_cut_download_is_resumed_by_range(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # 10 MB by default
    push(api)
    cut = hub.faults.cut("text_model.onnx", 5500)
    path = api.hf_hub_download(REPO_ID, "onnx/text_model.onnx", local_dir=tmp_path)
    assert Path(path).read_bytes() == WEIGHTS and cut.fired == 1
    asked = [call.headers.get("range") for call in hub.calls("text_model.onnx", "GET")]
    assert asked == [None, "bytes=5000-"]
    assert [call.sent for call in hub.calls("text_model.onnx", "GET")] == [5500, 5240]


@pytest.mark.parametrize("name", ["config.json", "onnx/text_model.onnx"])
def test_a_corrupt_byte_is_noticed_by_checksums_only(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, name: str
) -> None:
    push(api)
    hub.faults.corrupt(name)
    api.snapshot_download(REPO_ID, cache_dir=tmp_path)  # the client takes it: the size is right
    result = api.verify_repo_checksums(REPO_ID, cache_dir=tmp_path)
    assert [item["path"] for item in result.mismatches] == [name]
    path = api.hf_hub_download(REPO_ID, name, cache_dir=tmp_path, force_download=True)
    assert Path(path).read_bytes() == FILES[name]
    result = api.verify_repo_checksums(REPO_ID, cache_dir=tmp_path)
    assert result.mismatches == [] and result.checked_count == 4


def test_a_killed_client_leaves_the_hub_answering(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    code = (
        "import sys; from huggingface_hub import create_repo, upload_folder\n"
        "create_repo('tester/model', exist_ok=True)\n"
        "print('pushing', flush=True)\n"
        "upload_folder(repo_id='tester/model', folder_path=sys.argv[1])"
    )
    environment = os.environ | hub.env() | {"HF_HOME": str(tmp_path / "home")}
    delay = hub.faults.delay("/commit/", 0.3)
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        while not delay.fired:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    hub.requests.clear()
    environment["HF_HOME"] = str(tmp_path / "another")
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert hub.bytes_received == 0
    assert hub.content(REPO_ID, "model.safetensors") == WEIGHTS


def test_a_503_is_tried_again(hub: LoopbackHub, api: HfApi) -> None:
    fault = hub.faults.status("/preupload/", 503)
    push(api)
    assert fault.fired == 1
    assert [call.status for call in hub.calls("/preupload/")] == [503, 200]


def test_a_subprocess_finds_the_hub_by_its_environment(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up/model.safetensors").write_bytes(WEIGHTS)
    code = (
        "import sys; from huggingface_hub import create_repo, upload_folder, snapshot_download\n"
        "create_repo('org/m'); upload_folder(repo_id='org/m', folder_path=sys.argv[1] + '/up')\n"
        "snapshot_download('org/m', local_dir=sys.argv[1] + '/down')"
    )
    environment = os.environ | hub.env() | {"HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    assert (tmp_path / "down/model.safetensors").read_bytes() == WEIGHTS
    assert hub.content("org/m", "model.safetensors") == WEIGHTS


def test_nothing_is_left_open_when_the_hub_stops() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with LoopbackHub() as hub:
            client(hub).whoami()
        with pytest.raises(Exception, match=r"refused|disconnected|reset|Connection"):
            client(hub).whoami()
