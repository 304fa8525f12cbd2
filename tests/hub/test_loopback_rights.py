"""What the loopback Hub refuses: strangers, what is private or gated, and more than it holds."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    get_session,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.support.hub_client import (
    REPO_ID,
    api,
    client,
    failing_status,
    hub,
    push,
)
from tests.support.hub_state import MOST
from tests.support.loopback_hub import LoopbackHub

__all__ = ["api", "hub"]  # fixtures

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_typed_errors(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    push(api)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("tester/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(REPO_ID, "config.json", revision="v9", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.snapshot_download(REPO_ID, revision="0" * 40, cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        push(api, {"config.json": b"{}"}, revision="nowhere")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO_ID, "nothing.json", cache_dir=tmp_path)
    assert (tmp_path / "models--tester--model/.no_exist").is_dir()  # X-Repo-Commit was there
    with pytest.raises(HfHubHTTPError) as wrong:
        client(hub, "hf_wrong").whoami()
    assert failing_status(wrong) == 401 and "Invalid user token" in str(wrong.value)
    xet = get_session().get(f"{hub.url}/api/models/{REPO_ID}/xet-write-token/main")
    assert xet.status_code == 404


def test_what_a_commit_may_not_hold(hub: LoopbackHub, api: HfApi) -> None:
    def commit(key: str, **value: str) -> int:
        header = {"key": "header", "value": {"summary": "by hand"}}
        lines = [header, {"key": key, "value": value}]
        return (
            get_session()
            .post(
                f"{hub.url}/api/models/{REPO_ID}/commit/main",
                headers={"authorization": "Bearer hf_test"},
                content="\n".join(map(json.dumps, lines)),
            )
            .status_code
        )

    assert commit("file", path="../up", content="") == 400
    assert commit("file", path="/root", content="") == 400
    assert commit("lfsFile", path="a.bin", oid="0" * 64) == 400
    assert len(hub.repos[REPO_ID].history()) == 1
    assert commit("file", path="a.txt", content="YQ==") == 200
    assert hub.content(REPO_ID, "a.txt") == b"a"


def test_rights(hub: LoopbackHub, api: HfApi) -> None:
    push(api)
    reader = client(hub, "hf_read")
    assert reader.model_info(REPO_ID).id == REPO_ID
    attempts = (
        lambda api: push(api, {"config.json": b"{}"}),
        lambda api: api.create_repo("tester/other"),
        lambda api: api.create_tag(REPO_ID, tag="v1"),
        lambda api: api.delete_repo(REPO_ID),
    )
    hub.add_token("hf_stranger", user="stranger")
    for token in ("hf_read", "hf_stranger"):
        for attempt in attempts:
            with pytest.raises(HfHubHTTPError) as forbidden:
                attempt(client(hub, token))
            assert failing_status(forbidden) == 403
    assert len(hub.repos[REPO_ID].history()) == 2
    assert list(hub.repos[REPO_ID].refs) == ["refs/heads/main"]


def test_private_repos_are_invisible(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    push(api)
    api.update_repo_settings(REPO_ID, private=True)
    hub.add_token("hf_stranger", user="stranger")
    for token, status in (("hf_stranger", 404), (False, 401)):
        outsider = client(hub, token)
        with pytest.raises(RepositoryNotFoundError) as hidden:
            outsider.model_info(REPO_ID)
        assert failing_status(hidden) == status
        with pytest.raises(RepositoryNotFoundError):
            outsider.snapshot_download(REPO_ID, cache_dir=tmp_path)
    reader = client(hub, "hf_read")
    assert reader.hf_hub_download(REPO_ID, "config.json", cache_dir=tmp_path)


def test_gated_repos_show_their_files_but_not_the_contents(
    hub: LoopbackHub, api: HfApi, tmp_path: Path
) -> None:
    push(api)
    api.update_repo_settings(REPO_ID, gated="auto")
    hub.add_token("hf_stranger", user="stranger", may_write=False)
    stranger = client(hub, "hf_stranger")
    assert "config.json" in stranger.list_repo_files(REPO_ID)
    for outsider in (stranger, client(hub, False)):
        with pytest.raises(GatedRepoError):
            outsider.hf_hub_download(REPO_ID, "config.json", cache_dir=tmp_path)
    hub.repos[REPO_ID].readers.add("stranger")
    assert stranger.hf_hub_download(REPO_ID, "config.json", cache_dir=tmp_path)


def test_pull_request_and_merge(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    first = push(api)
    hub.add_token("hf_stranger", user="stranger")
    pull = push(client(hub, "hf_stranger"), {"extra.onnx": b"\0other weights"}, create_pr=True)
    assert (pull.pr_num, pull.pr_revision) == (1, "refs/pr/1")
    assert "extra.onnx" not in api.list_repo_files(REPO_ID)
    path = api.hf_hub_download(REPO_ID, "extra.onnx", revision="refs/pr/1", cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"\0other weights"
    later = push(api, {"config.json": b"{}"})
    stale = push(api, {"config.json": b"[]"}, create_pr=True, parent_commit=first.oid)
    refs = api.list_repo_refs(REPO_ID, include_pull_requests=True)
    pulls = {ref.ref: ref.target_commit for ref in refs.pull_requests or []}
    assert pulls == {"refs/pr/1": pull.oid, "refs/pr/2": stale.oid}
    with pytest.raises(HfHubHTTPError) as forbidden:
        client(hub, "hf_stranger").merge_pull_request(REPO_ID, 1)
    assert failing_status(forbidden) == 403
    api.merge_pull_request(REPO_ID, 1)
    head = hub.repos[REPO_ID].head()
    assert head.parents == (later.oid, pull.oid)
    assert hub.content(REPO_ID, "extra.onnx") == b"\0other weights"
    assert hub.content(REPO_ID, "config.json") == b"{}"
    for num in (1, 2):  # merged already, in conflict with main
        with pytest.raises(HfHubHTTPError) as conflict:
            api.merge_pull_request(REPO_ID, num)
        assert failing_status(conflict) == 409
    assert hub.content(REPO_ID, "config.json") == b"{}"


def ask(hub: LoopbackHub, head: str) -> int:
    """The status of a request as it is written here."""
    host, port = hub.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n")
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /api/models/tester/model HTTP/1.1", 401),
        ("GET /" + "x" * 9000 + " HTTP/1.1", 414),
        ("GET / HTTP/1.1\r\nX: " + "x" * 40_000, 431),
        ("PUT / HTTP/1.1\r\n" + "\r\n".join(f"X{n}: y" for n in range(200)), 431),
        ("PUT /lfs-upload/a/b HTTP/1.1\r\nContent-Length: 1000000000000", 413),
        ("PUT / HTTP/1.1\r\nContent-Length: -1", 400),
        ("PUT / HTTP/1.1\r\nContent-Length: many", 400),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked", 400),
    ],
)
def test_a_request_larger_than_any_client_sends_is_refused_unread(
    hub: LoopbackHub, head: str, status: int
) -> None:
    assert ask(hub, head) == status
    assert sum(len(call.body) for call in hub.requests) == 0


def test_what_it_keeps_is_bounded(
    hub: LoopbackHub, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOST, "files", 3)
    many = [CommitOperationAdd(f"{number}.txt", b"x") for number in range(5)]
    with pytest.raises(HfHubHTTPError, match="413"):
        api.create_commit(REPO_ID, many, commit_message="many")
    monkeypatch.setitem(MOST, "contents", 2000)
    with pytest.raises(HfHubHTTPError, match="507"):
        api.create_commit(REPO_ID, [CommitOperationAdd("a.txt", b"x" * 3000)], commit_message="big")
    assert set(hub.repos[REPO_ID].head().files) == {".gitattributes"}
