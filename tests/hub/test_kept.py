"""`ptft pull --keep`: several models in a folder, kept by number, there while the Hub is away."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import FolderFiles, read_model_info
from ptft.errors import DigestError, HubError, SignatureError, UsageError
from ptft.hub import pull_kept, push_model
from ptft.hub.kept import kept_name
from ptft.reach import answers
from tests.support.hub_parts import (
    ONNX,
    REPO_ID,
    TOKEN,
    folder_bytes,
    make_folder,
    run,
)
from tests.support.keys import make_key
from tests.support.loopback_hub import LoopbackHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def three(hub: LoopbackHub, tmp_path: Path) -> dict[str, Path]:
    """v1, v2 and v3 of one repository."""
    found = {}
    for number in (1, 2, 3):
        tag = f"v{number}"
        found[tag] = make_folder(tmp_path / tag, number)
        push_model(found[tag], REPO_ID, tag=tag, endpoint=hub.url, token=TOKEN)
    hub.requests.clear()
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def pull(hub: LoopbackHub, root: Path, tag: str, keep: int = 2, **more: Any) -> Path:
    cache = root.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)  # a pod has none of the one before it
    return pull_kept(
        f"{REPO_ID}@{tag}", root, keep, endpoint=hub.url, token=TOKEN, cache_dir=cache, **more
    )


def asked(root: Path, tag: str, minutes_ago: int) -> None:
    """Set when a model was asked for."""
    place = root / kept_name(f"{REPO_ID}@{tag}")
    when = place.stat().st_mtime - 60 * minutes_ago
    os.utime(place, (when, when))


def kept(root: Path) -> set[str]:
    return {path.name.partition("@")[2] for path in root.iterdir()}


def test_those_that_were_asked_for_last_stay(
    hub: LoopbackHub, three: dict[str, Path], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "of-another").mkdir(parents=True)
    for tag, minutes in (("v1", 30), ("v2", 20)):
        place = pull(hub, root, tag)
        assert place == root / f"tester--model@{tag}"
        assert folder_bytes(place) == folder_bytes(three[tag])
        asked(root, tag, minutes)
    pull(hub, root, "v1")  # asked for again, so that it is younger than v2
    with caplog.at_level(logging.INFO, "ptft"):
        pull(hub, root, "v3")
    assert kept(root) == {"v1", "v3", ""}  # what was not put there stays
    assert "tester--model@v2: removed, asked for last on" in caplog.text
    assert pull(hub, root, "v3", keep=1).is_dir()
    assert kept(root) == {"v3", ""}


def test_what_a_removal_left_goes_with_the_next(
    hub: LoopbackHub, three: dict[str, Path], root: Path
) -> None:
    left = root / ".tester--model@v0.removed"
    left.mkdir(parents=True)
    (left / FolderFiles.INFO).write_text("{}")
    pull(hub, root, "v1")
    assert not left.exists()


@pytest.mark.parametrize("known", [True, False], ids=["answered before", "never asked"])
def test_the_hub_is_away(
    hub: LoopbackHub,
    three: dict[str, Path],
    root: Path,
    known: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = pull(hub, root, "v1")
    hub.stop()
    if not known:
        answers.pop(hub.url)
    assert pull(hub, root, "v1") == place
    (line,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert f"cannot reach {hub.url}" in line
    assert "tester--model@v1 is there whole, of 2" in line
    assert line.endswith(read_model_info(place).digest)
    with pytest.raises(HubError, match=r"cannot reach .*; .*models has tester--model@v1$"):
        pull(hub, root, "v2")
    (place / ONNX).write_bytes(b"x")
    with pytest.raises(DigestError, match=ONNX):
        pull(hub, root, "v1")


def test_the_hub_is_in_trouble_and_where_it_refuses(
    hub: LoopbackHub, three: dict[str, Path], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = pull(hub, root, "v1")
    hub.faults.status("/api/models/", 500, times=9)
    assert pull(hub, root, "v1") == place
    assert "is in trouble" in caplog.text and "is there whole" in caplog.text
    hub.faults.clear()
    hub.faults.status("/api/models/", 403, times=9)
    with pytest.raises(HubError, match="no right"):  # a model that is not to be had any longer
        pull(hub, root, "v1")


def test_a_signature_is_asked_of_what_is_there_too(
    hub: LoopbackHub, three: dict[str, Path], root: Path
) -> None:
    make_key(root.parent / "mine.pem", "prime256v1")
    pull(hub, root, "v1")
    hub.stop()
    with pytest.raises(SignatureError, match="not signed"):
        pull(hub, root, "v1", signed_by=root.parent / "mine.pub")


@pytest.mark.parametrize("target", [REPO_ID, f"{REPO_ID}@refs/pr/1"])
def test_a_model_has_a_revision_that_can_be_a_folder(target: str, root: Path) -> None:
    with pytest.raises(UsageError, match="--keep needs a revision without /"):
        pull_kept(target, root, 2)
    assert not root.exists()


def test_by_the_command(hub: LoopbackHub, three: dict[str, Path], root: Path) -> None:
    home = root.parent / "home"
    done = run(hub, home, "pull", f"{REPO_ID}@v1", root, "--keep", "2")
    assert done.stdout.strip() == str(root / "tester--model@v1"), done.stderr
    done = run(hub, home, "pull", f"{REPO_ID}@v1", "--keep", "2")
    assert done.returncode == 2 and "--keep 2: needs a folder" in done.stderr
