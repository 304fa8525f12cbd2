"""Runs with a mirror: whole, stopped, and what a mirror must be."""

import shutil
from pathlib import Path

import pytest

from ptft.artifact import file_sha256
from ptft.runs.mirror.manifest import Manifest
from ptft.runs.mirror.newest import read_manifests
from ptft.runs.mirror.store import MirrorStore
from tests.support.runs import interrupt, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(folder).finished
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    given = {"run__mirror": str(folder / "mirror"), "run__checkpoint_every": 2}
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, folder / "run", 4, **given)
    return folder / "mirror"


@pytest.fixture
def stopped(made: Path, tmp_path: Path) -> Path:
    """A mirror of a run that was stopped after four steps; the run's folder is gone."""
    return Path(shutil.copytree(made, tmp_path / "mirror"))


def manifests(mirror: Path) -> list[Manifest]:
    return read_manifests(MirrorStore(str(mirror)))


def check_whole(mirror: Path) -> None:
    """Each copy is whole, and nothing is there beside what they name."""
    found = manifests(mirror)
    for manifest in found:
        for name, entry in manifest.files.items():
            path = mirror / "objects" / entry["sha256"]
            assert path.stat().st_size == entry["size"], name
            assert file_sha256(path) == entry["sha256"], name
    named = {sha256 for manifest in found for sha256 in manifest.objects}
    assert {path.name for path in (mirror / "objects").iterdir()} == named
