"""A push is one commit or none, sends only what the Hub lacks, and says what stopped it."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from ptft.artifact import read_model_info
from ptft.errors import ArtifactError, DigestError, HubError, UsageError
from ptft.hub import PushResult, push_model
from tests.support.hub_parts import (
    CARD,
    COMMAND,
    ONNX,
    READ_TOKEN,
    REPO_ID,
    TOKEN,
    WEIGHTS,
    environment,
    folder_bytes,
    hub_bytes,
    make_folder,
    run,
)
from tests.support.hub_state import Reply
from tests.support.loopback_hub import LoopbackHub

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "model")


def push(hub: LoopbackHub, folder: Path, token: str | None = TOKEN, **options: Any) -> PushResult:
    return push_model(folder, REPO_ID, endpoint=hub.url, token=token, **options)


def refused(
    hub: LoopbackHub, folder: Path, kind: type[Exception] = HubError, **options: Any
) -> str:
    """The one line of a push that fails."""
    with pytest.raises(kind) as caught:
        push(hub, folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_push_is_one_commit_with_a_tag(hub: LoopbackHub, folder: Path) -> None:
    done = push(hub, folder, tag="v1")
    repo = hub.repos[REPO_ID]
    first, initial = repo.history()
    assert (done.commit, done.tag, repo.refs["refs/tags/v1"]) == (first.id, "v1", first.id)
    assert initial.title == "initial commit" and first.title == "Publish m v1"
    assert done.url == f"{hub.url}/{REPO_ID}/commit/{first.id}"
    assert hub_bytes(hub) == folder_bytes(folder)
    assert hub.content(REPO_ID, "README.md").decode().startswith(CARD)
    assert done.sent[WEIGHTS] == (folder / WEIGHTS).stat().st_size and not done.notes
    assert (call := hub.calls("/commit/", "POST")[0]).query.get("create_pr") is None
    assert call.status == 200


def test_an_equal_folder_sends_nothing_and_makes_no_commit(hub: LoopbackHub, folder: Path) -> None:
    first = push(hub, folder, tag="v1")
    hub.requests.clear()
    again = push(hub, folder, tag="v1")
    assert again.commit == first.commit and again.sent == {} and again.sent_bytes == 0
    assert hub.bytes_received == 0
    assert [call.path for call in hub.calls("", "PUT", "POST") if call.status == 200] == []
    assert len(hub.repos[REPO_ID].history()) == 2
    late = push(hub, folder, tag="v1.0")
    assert hub.repos[REPO_ID].refs["refs/tags/v1.0"] == late.commit == first.commit


def test_a_new_version_replaces_our_files_and_keeps_others(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    push(hub, make_folder(tmp_path / "one", 1, **{"head.safetensors": b"\0head"}), tag="v1")
    theirs = [CommitOperationAdd("plots/theirs.csv", b"a,b")]
    HfApi(hub.url, token=TOKEN).create_commit(REPO_ID, theirs, commit_message="by hand")
    two = make_folder(tmp_path / "two", 2, **{ONNX: (tmp_path / "one" / ONNX).read_bytes()})
    hub.requests.clear()
    done = push(hub, two, tag="v2")
    assert done.deleted == ("head.safetensors",)
    assert ONNX not in done.sent and hub.bytes_received == (two / WEIGHTS).stat().st_size
    assert hub_bytes(hub) == {**folder_bytes(two), "plots/theirs.csv": b"a,b"}
    assert hub_bytes(hub, "v1") == folder_bytes(tmp_path / "one")


def test_hand_written_parts_of_the_card_stay(hub: LoopbackHub, tmp_path: Path) -> None:
    push(hub, make_folder(tmp_path / "one", 1))
    card = hub.content(REPO_ID, "README.md").decode()
    by_hand = card.replace("Of the folder.", "Of the Hub.").replace(
        "tags:\n", "language: en\ntags:\n- animals\n"
    )
    HfApi(hub.url, token=TOKEN).create_commit(
        REPO_ID, [CommitOperationAdd("README.md", by_hand.encode())], commit_message="by hand"
    )
    new_card = CARD.replace("## Measured", "## Measured anew")
    two = make_folder(tmp_path / "two", 2, **{"README.md": new_card})
    push(hub, two)
    card = hub.content(REPO_ID, "README.md").decode()
    assert "Of the Hub." in card and "Of the folder." not in card and "## Measured anew" in card
    assert "language: en" in card and "- animals" in card and "license: apache-2.0" in card
    assert push(hub, two).sent == {}
    assert (two / "README.md").read_text() == new_card  # the folder is only read


def test_dry_run_lists_and_changes_nothing(hub: LoopbackHub, tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", 1)
    plan = push(hub, one, token=None, dry_run=True, tag="v1")
    assert plan.commit == "" and set(plan.sent) == {*folder_bytes(one), "README.md"}
    assert hub.repos == {} and hub.calls("", "POST", "PUT") == []
    first = push(hub, one)
    hub.requests.clear()
    plan = push(hub, make_folder(tmp_path / "two", 2), dry_run=True)
    assert WEIGHTS in plan.sent and "README.md" not in plan.sent
    assert plan.commit == first.commit == hub.repos[REPO_ID].head().id
    assert hub.calls("", "POST", "PUT") == []


def test_pull_request_leaves_main_as_it_was(hub: LoopbackHub, tmp_path: Path) -> None:
    first = push(hub, make_folder(tmp_path / "one", 1))
    two = make_folder(tmp_path / "two", 2)
    done = push(hub, two, create_pr=True)
    assert done.url == f"{hub.url}/{REPO_ID}/discussions/1"
    assert hub.repos[REPO_ID].head().id == first.commit
    assert hub_bytes(hub, "refs/pr/1") == folder_bytes(two)
    assert "merged" in refused(hub, two, UsageError, create_pr=True, tag="v2")


def test_visibility(hub: LoopbackHub, folder: Path) -> None:
    push(hub, folder, private=True)
    assert hub.repos[REPO_ID].private
    assert push(hub, folder).sent == {}  # nothing asked for, nothing changed
    assert "is private already" in refused(hub, folder, private=False)


def test_a_version_is_never_moved(hub: LoopbackHub, tmp_path: Path) -> None:
    push(hub, make_folder(tmp_path / "one", 1), tag="v1")
    hub.requests.clear()
    message = refused(hub, make_folder(tmp_path / "two", 2), tag="v1")
    assert "'v1'" in message and "never moved" in message
    assert hub.calls("", "POST", "PUT") == []


def test_a_changed_folder_is_refused_before_anything_is_sent(
    hub: LoopbackHub, folder: Path
) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[1000] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    assert WEIGHTS in refused(hub, folder, DigestError)
    make_folder(folder)
    (folder / "notes.txt").write_text("later")
    assert "notes.txt" in refused(hub, folder, ArtifactError)
    (folder / "notes.txt").unlink()
    (folder / "recipe.yaml").unlink()
    assert "recipe.yaml: missing" in refused(hub, folder, DigestError)
    assert hub.requests == []


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "sub/x.PT", "a.pth", "a.ckpt", "a.pkl", "a.npz", "a.py", "a.so"]
)
def test_only_known_kinds_of_files(hub: LoopbackHub, folder: Path, name: str) -> None:
    make_folder(folder, **{name: b"content"})  # recorded, and refused all the same
    assert name in refused(hub, folder, ArtifactError)
    assert hub.requests == []


def test_hidden_files_stay_at_home(hub: LoopbackHub, folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache/x.json").write_text("{}")
    push(hub, folder)
    assert ".cache/x.json" not in hub.repos[REPO_ID].head().files


def test_somebody_elses_commit_meanwhile(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(hub, make_folder(tmp_path / "one", 1))
    two = make_folder(tmp_path / "two", 2)
    upload = HfApi.preupload_lfs_files

    def interfere(api: HfApi, *args: Any, **values: Any) -> None:
        monkeypatch.setattr(HfApi, "preupload_lfs_files", upload)
        other = [CommitOperationAdd("theirs.json", b"{}")]
        HfApi(hub.url, token=TOKEN).create_commit(REPO_ID, other, commit_message="meanwhile")
        upload(api, *args, **values)

    monkeypatch.setattr(HfApi, "preupload_lfs_files", interfere)
    message = refused(hub, two)
    assert "changed by somebody else" in message and "'main'" not in message
    assert hub.repos[REPO_ID].head().title == "meanwhile"
    hub.requests.clear()
    push(hub, two)
    assert hub.bytes_received == 0  # the large files were there already
    assert hub_bytes(hub) == {**folder_bytes(two), "theirs.json": b"{}"}


def test_who_may_not_push(hub: LoopbackHub, folder: Path) -> None:
    assert "there is no token" in refused(hub, folder, token=None)
    message = refused(hub, folder, token="hf_mistyped_secret")
    assert "not valid" in message and "secret" not in message
    for others in ("org/private", "elsewhere/model"):
        hub.add_token("hf_stranger", "stranger")
        with pytest.raises(HubError, match="no right to push"):
            push_model(folder, others, endpoint=hub.url, token="hf_stranger")
    assert "no right to push" in refused(hub, folder, token=READ_TOKEN)
    assert hub.repos == {}
    push(hub, folder)
    make_folder(folder, 2)
    assert "no right to push" in refused(hub, folder, token=READ_TOKEN)
    assert len(hub.repos[REPO_ID].history()) == 2


def test_a_name_that_is_taken(
    hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(hub, folder)

    def hide(*_: object) -> None:
        raise Reply(404, "Repository not found", "RepoNotFound")

    monkeypatch.setattr(hub, "get_revision", hide)  # as if this token had not been let in
    assert "the name is taken" in refused(hub, folder)
    assert hub.calls("/repos/create")[-1].status == 409


@pytest.mark.parametrize("repo", ["model", "a/b/c", "a b/c", "org/model:split", "org/model@v1"])
def test_names_that_do_not_fit(folder: Path, repo: str) -> None:
    with pytest.raises(UsageError, match="org/name"):
        push_model(folder, repo, token=TOKEN)


def test_other_troubles_are_one_line_each(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    push(hub, folder)
    make_folder(folder, 2)
    assert "did you mean 'main'" in refused(hub, folder, revision="mian")
    for status, words in {
        409: "conflict",
        413: "too large",
        507: "no room left",
        500: "in trouble",
    }.items():
        hub.faults.status("/commit/main", status)
        assert words in refused(hub, folder)
    assert "allowed: letters" in refused(hub, folder, UsageError, tag="v 1")
    assert "no such folder" in refused(hub, tmp_path / "nowhere", UsageError)
    broken = make_folder(tmp_path / "broken", **{"README.md": "---\nlicense: [mit\n---\n"})
    assert "README.md: while parsing" in refused(hub, broken, ArtifactError)
    unlicensed = make_folder(tmp_path / "unlicensed", **{"README.md": "---\ntags: [a]\n---\n# x\n"})
    done = push_model(unlicensed, "tester/other", endpoint=hub.url, token=TOKEN)
    assert "names no license" in done.notes[0]


def test_a_hub_that_is_not_there(folder: Path) -> None:
    with LoopbackHub() as hub:
        url = hub.url
    with pytest.raises(HubError, match=f"cannot reach {url}"):
        push_model(folder, REPO_ID, endpoint=url, token=TOKEN)


def test_a_lost_answer_to_the_commit(hub: LoopbackHub, folder: Path) -> None:
    hub.faults.lose_reply("/commit/main")
    assert "cannot reach" in refused(hub, folder)
    again = push(hub, folder, tag="v1")  # the commit was made: nothing is left but the tag
    assert again.sent == {} and len(hub.repos[REPO_ID].history()) == 2
    assert hub.repos[REPO_ID].refs["refs/tags/v1"] == again.commit


def test_a_server_without_xet(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    done = run(hub, tmp_path / "home", "push", folder, REPO_ID, HF_HUB_DISABLE_XET="0")
    assert done.returncode == 1 and done.stdout == ""
    assert "set HF_HUB_DISABLE_XET=1" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_offline(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    done = run(hub, tmp_path / "home", "push", folder, REPO_ID, HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "HF_HUB_OFFLINE is set" in done.stderr


def test_the_command(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    plan = run(hub, home, "push", folder, REPO_ID, "--tag", "v1", "--dry-run")
    assert plan.returncode == 0 and hub.repos == {}
    listed = {line.split()[-1] for line in plan.stdout.splitlines()}
    assert listed == {*folder_bytes(folder), "README.md", "v1"}
    done = run(hub, home, "push", folder, REPO_ID, "--tag", "v1", "--private", "--license", "mit")
    head = hub.repos[REPO_ID].head("v1").id
    assert done.returncode == 0 and done.stdout == f"{hub.url}/{REPO_ID}/commit/{head}\n"
    assert hub.repos[REPO_ID].private
    assert b"\nlicense: mit\n" in hub.content(REPO_ID, "README.md", "v1")
    wrong = run(hub, home, "push", folder, REPO_ID, HF_TOKEN="hf_mistyped_secret")
    assert wrong.returncode == 1 and "secret" not in wrong.stderr + wrong.stdout
    *steps, last = wrong.stderr.splitlines()
    assert last.startswith("ptft: ") and steps[1:] == [f"{REPO_ID}: looking at what is there"]


@pytest.mark.parametrize("moment", ["/preupload/", "/batch", "/lfs-upload/", "/verify", "/commit/"])
def test_a_killed_push_changes_nothing_and_the_next_completes(
    hub: LoopbackHub, tmp_path: Path, moment: str
) -> None:
    one, two = make_folder(tmp_path / "one", 1), make_folder(tmp_path / "two", 2)
    first = push(hub, one, tag="v1")
    hub.requests.clear()
    held = hub.faults.delay(moment, 60, times=2)
    process = subprocess.Popen(
        [*COMMAND, "push", str(two), REPO_ID, "--tag", "v2"],
        env=environment(hub, tmp_path / "home"),
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not held.fired and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and held.fired
    assert hub.repos[REPO_ID].head().id == first.commit
    assert list(hub.repos[REPO_ID].refs) == ["refs/heads/main", "refs/tags/v1"]
    hub.faults.clear()
    arrived = sum(len(hub.contents[oid]) for oid in hub.repos[REPO_ID].objects)
    hub.requests.clear()
    done = push(hub, two, tag="v2")
    assert hub_bytes(hub, "v2") == folder_bytes(two) and len(hub.repos[REPO_ID].history()) == 3
    assert done.commit == hub.repos[REPO_ID].head().id
    all_four = sum((f / name).stat().st_size for f in (one, two) for name in (WEIGHTS, ONNX))
    assert hub.bytes_received == all_four - arrived  # what had arrived is not sent twice
    if moment == "/commit/":  # at /verify of one file the other may be on its way still
        assert hub.bytes_received == 0
    assert read_model_info(two).digest.startswith("sha256:")
