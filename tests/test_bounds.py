"""What changes its API between versions is bounded to what was tested, everywhere alike."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

BOUNDED = ("bentoml", "huggingface_hub", "open_clip_torch", "peft", "timm", "transformers")


def requirements(repo: Path) -> dict[str, Requirement]:
    project = tomllib.loads((repo / "pyproject.toml").read_text())["project"]
    every = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    return {found.name: found for found in map(Requirement, every)}


@pytest.mark.parametrize("name", BOUNDED)
def test_the_tested_version_is_inside_and_the_next_that_may_differ_is_not(
    repo: Path, name: str
) -> None:
    specifier = requirements(repo)[name].specifier
    (tested,) = re.findall(
        rf"^{name}==(\S+)$", (repo / "constraints.txt").read_text(), re.MULTILINE
    )
    version = Version(tested)
    assert version in specifier
    major, minor = version.release[:2]
    by_minor = name in ("bentoml", "peft", "timm")  # 0.x, or breaking at a minor version
    following = f"{major}.{minor + 1}" if by_minor else f"{major + 1}"
    assert Version(following) not in specifier
    assert Version(f"{version.base_version}.post1") in specifier


def test_the_service_has_the_same_bounds(repo: Path) -> None:
    ours = requirements(repo)
    names = ("serving/requirements.txt", "serving/image.txt")  # the first takes in the second
    lines = [line for name in names for line in (repo / name).read_text().splitlines()]
    theirs = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    bounded = [found for found in theirs if found.name in BOUNDED]
    assert [found.name for found in bounded] == ["bentoml", "huggingface_hub"]
    assert all(found.specifier == ours[found.name].specifier for found in bounded)


def test_the_newest_are_tried_without_the_bounds(repo: Path, tmp_path: Path) -> None:
    script = repo / ".ci/newest"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    (listing,) = re.findall(r"<<'END'\n(.*?)\nEND\n", script.read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", listing], cwd=repo, capture_output=True, text=True, check=True
    )
    found = {wanted.name: wanted for wanted in map(Requirement, done.stdout.splitlines())}
    assert set(BOUNDED) <= set(found)
    assert all("<" not in str(wanted.specifier) for wanted in found.values())
    names = re.findall(r"[\w/]*\btest_\w+", script.read_text())
    assert names
    assert [name for name in names if not (repo / "tests" / f"{name}.py").is_file()] == []
