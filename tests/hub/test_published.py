"""What a push sends: plain files of the folder, those that were checked, and no key in any."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ptft.artifact import hash_files
from ptft.errors import ArtifactError, DigestError
from ptft.hub import push_model
from ptft.hub.opened import open_files
from ptft.printable import credential_in, find_credential, hide_credentials
from tests.support.hub_parts import CARD, ONNX, REPO_ID, TOKEN, WEIGHTS, make_folder, record, run
from tests.support.loopback_hub import LoopbackHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"
HUB_TOKEN = "hf_" + "a1B2" * 9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "model")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A secret beside the folder, of its user alone."""
    path = tmp_path / "id_ed25519"
    path.write_text(PEM)
    path.chmod(0o600)
    return path


def refused(hub: LoopbackHub, folder: Path, kind: type[Exception] = ArtifactError) -> str:
    """The one line of a push that fails, of which nothing arrived."""
    with pytest.raises(kind) as caught:
        push_model(folder, REPO_ID, endpoint=hub.url, token=TOKEN)
    assert hub.bytes_received == 0 and not hub.calls("/commit/", "POST")
    assert "\n" not in str(caught.value) and "BEGIN" not in str(caught.value)
    return str(caught.value)


def link_card(folder: Path, key: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(key)


def link_weights(folder: Path, key: Path) -> None:
    key.write_bytes((folder / WEIGHTS).read_bytes())  # the bytes are right; the place is not
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(key)


def link_inner_folder(folder: Path, key: Path) -> None:
    (folder / "onnx").rename(key.with_name("elsewhere"))
    (folder / "onnx").symlink_to(key.with_name("elsewhere"))


def dangling(folder: Path, key: Path) -> None:
    (folder / "notes.txt").symlink_to(key.with_name("nowhere"))


def pipe(folder: Path, key: Path) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")


def bind(folder: Path, key: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(folder)  # a socket's path is short
        try:
            listening.bind("s.txt")
        finally:
            os.chdir(before)


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (link_card, "README.md: is a link"),
        (link_weights, f"{WEIGHTS}: is a link"),
        (link_inner_folder, "onnx: is a link"),
        (dangling, "notes.txt: is a link"),
        (pipe, "README.md: is a pipe"),
        (bind, "s.txt: is a socket"),
    ],
)
def test_nothing_but_plain_files_is_published(
    hub: LoopbackHub, folder: Path, key: Path, plant: Callable[[Path, Path], None], said: str
) -> None:
    plant(folder, key)
    assert said in refused(hub, folder)


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (link_card, "README.md: is a link"),
        (link_weights, f"{WEIGHTS}: is a link"),
        (link_inner_folder, f"{ONNX}: is a link"),
        (pipe, "README.md: is a pipe"),
    ],
)
def test_what_changed_since_it_was_listed_is_not_opened(
    folder: Path, key: Path, plant: Callable[[Path, Path], None], said: str
) -> None:
    files = hash_files(folder)
    plant(folder, key)  # the listing, which would refuse it, has been made
    with pytest.raises(ArtifactError, match=said), open_files(folder, ["README.md"], files):
        pass


def test_a_record_that_is_written_anew_meanwhile_is_not_published(
    hub: LoopbackHub, folder: Path
) -> None:
    def meddle(message: str) -> None:
        if "holding" in message:
            record(folder, logit_scale=50.0)

    with pytest.raises(DigestError, match=r"ptft\.json: changed while it was being published"):
        push_model(folder, REPO_ID, endpoint=hub.url, token=TOKEN, progress=meddle)
    assert hub.bytes_received == 0 and not hub.calls("/commit/", "POST")


def test_a_card_with_another_name_elsewhere_is_not_published(
    hub: LoopbackHub, folder: Path, tmp_path: Path
) -> None:
    (folder / "README.md").unlink()
    private = tmp_path / "diary"
    private.write_text("dear diary")
    os.link(private, folder / "README.md")
    assert "2 names (hard links)" in refused(hub, folder)
    (folder / "README.md").unlink()
    (folder / "README.md").write_text(CARD)
    os.link(folder / WEIGHTS, tmp_path / "backup")  # of what is recorded, the bytes are known
    push_model(folder, REPO_ID, endpoint=hub.url, token=TOKEN)


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        f"export HF_TOKEN={HUB_TOKEN}\n",
        "train: s3://AKIAABCDEFGHIJKLMNOP:secret@bucket/x.tar\n",
        "see https://me:hunter2@example.org/set\n",
    ],
)
@pytest.mark.parametrize("name", ["README.md", "recipe.yaml"])
def test_a_text_with_a_key_is_not_published(
    hub: LoopbackHub, folder: Path, name: str, text: str
) -> None:
    (folder / name).write_text((folder / name).read_text() + text)
    record(folder)
    told = refused(hub, folder)
    assert f"{name}: holds" in told
    for secret in ("hunter2", "AKIA", HUB_TOKEN, "b3BlbnN"):
        assert secret not in told


def test_what_was_checked_is_what_is_sent(folder: Path, key: Path) -> None:
    """A name that leads elsewhere after the check changes nothing; a changed record is told."""
    files = hash_files(folder)
    large = (folder / WEIGHTS).read_bytes() * 20  # beyond what is kept in memory
    (folder / WEIGHTS).write_bytes(large)
    files = hash_files(folder)
    with open_files(folder, [*files, "README.md"], files) as opened:
        content = opened[WEIGHTS].content
        assert isinstance(content, Path) and opened[WEIGHTS].size == len(large)
        for name in (WEIGHTS, "README.md"):
            (folder / name).unlink()
            (folder / name).symlink_to(key)
        assert content.read_bytes() == large
        assert opened["README.md"].content == CARD.encode()
    assert not content.exists()  # closed
    with pytest.raises(ArtifactError, match="is a link"), open_files(folder, [], files):
        pass


def test_a_file_that_is_written_to_meanwhile_is_not_published(
    hub: LoopbackHub, folder: Path
) -> None:
    """In place, so that it is the file that was opened."""
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() * 20)
    record(folder)

    def meddle(message: str) -> None:
        if "sending" in message:
            with (folder / WEIGHTS).open("r+b") as stream:
                stream.write(b"other")

    with pytest.raises(DigestError, match="changed while it was being published"):
        push_model(folder, REPO_ID, endpoint=hub.url, token=TOKEN, progress=meddle)
    assert not hub.calls("/commit/", "POST")


def test_what_is_sent_is_said_with_its_size_before(
    hub: LoopbackHub, folder: Path, tmp_path: Path
) -> None:
    done = run(hub, tmp_path / "home", "push", folder, REPO_ID)
    assert done.returncode == 0, done.stderr
    size = (folder / WEIGHTS).stat().st_size
    assert f"{size:,}  {WEIGHTS}" in done.stderr
    listed = [line.split() for line in done.stderr.splitlines() if line.startswith("   ")]
    assert {name for _, name in listed} == set(hub.repos[REPO_ID].head("main").files) - {
        ".gitattributes"
    }


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("s3://KEY:SECRET@bucket/a.tar", "s3://***@bucket/a.tar"),
        ("https://token@host/x", "https://***@host/x"),
        ("https://host/x?a=1&X-Amz-Signature=abc&b=2", "https://host/x?a=1&***&b=2"),
        ("https://host/x?access_token=abc", "https://host/x?***"),
        (f"use {HUB_TOKEN} here", "use *** here"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
        ("ghp_" + "a" * 36, "***"),
        (f"a\n{PEM}", "a\n***"),
    ],
)
def test_credentials_are_found_and_hidden(text: str, hidden: str) -> None:
    assert find_credential(text) is not None
    assert hide_credentials(text) == hidden
    assert find_credential(hidden) is None
    found = credential_in({"a": [{"b": "plain"}, {"b": text}]})
    assert found is not None and found.startswith("a.1.b: holds ")


@pytest.mark.parametrize(
    "text",
    [
        *("hf://datasets/org/name@rev/x.tar", "git+ssh://git@github.com/org/repo", "org/name@v1"),
        *("hf_hub_download", "a photo of a key=value", "s3://bucket/{0..3}.tar", "me@example.org"),
    ],
)
def test_plain_texts_hold_none(text: str) -> None:
    assert find_credential(text) is None and hide_credentials(text) == text
