"""What is published: an sdist that holds the checkout, a wheel of it that works on its own."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest


def done(command: list[str | Path], where: Path) -> str:
    """Its output; nothing of the checkout is on its path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=where, env=kept, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def sdist(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    done([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out], repo)
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist alone, by the installed hatchling, without a network."""
    place = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as tar:
        tar.extractall(place, filter="data")
    (source,) = place.iterdir()
    out = place / "out"
    done([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], source)
    (found,) = out.iterdir()
    return found


def test_the_sdist_holds_the_checkout(repo: Path, sdist: Path) -> None:
    """Its tests, too, and all that they read."""
    if not (repo / ".git").exists():
        pytest.skip("this is no checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tracked = {line for line in done([*command], repo).splitlines() if (repo / line).is_file()}
    with tarfile.open(sdist) as tar:
        held = {member.name.partition("/")[2] for member in tar if member.isfile()}
    assert tracked - held == set()
    assert held - tracked == {"PKG-INFO"}


def test_the_wheel_works_on_its_own(wheel: Path, tmp_path: Path) -> None:
    """In an environment that has ptft from nowhere else, and its dependencies from this one."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    (packages,) = place.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    done([*pip, "--no-deps", "--disable-pip-version-check", wheel], tmp_path)
    (packages / "base.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import ptft; print(ptft.__file__, ptft.__version__)"
    file, version = done([python, "-c", code], elsewhere).split()
    assert Path(file).is_relative_to(packages)
    assert f"ptft-{version}-" in wheel.name
    ptft = place / "bin" / "ptft"
    assert "pretrain/scenes" in done([ptft, "ls"], elsewhere)
    assert "Usage: ptft" in done([ptft, "--help"], elsewhere)
    small = ["data.train=32", "data.val=8", "data.test=8"]
    told = done([ptft, "check", "pretrain/scenes", *small], elsewhere)
    assert '"ok": true' in told
