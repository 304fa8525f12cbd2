"""The hashed locks: whole, of the versions in constraints.txt, and of nobody's machine."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).parents[1]
LOCKS = (
    *("requirements/ci.txt", "requirements/torch.txt", "requirements/torch-cpu.txt"),
    *("serving/requirements.lock", "serving/build.lock", "serving/image.lock"),
    *("serving/gpu.lock", "requirements/train.txt"),
)
OWN_VERSIONS = {"requirements/train.txt"}  # buckets and trackers want others of some packages


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Name -> (version, hashes)."""
    text = (REPO / name).read_text()
    entries = re.findall(r"^([\w.-]+)==([^\s;]+)[^\n]*((?:\n +--hash=\S+(?: \\)?)*)", text, re.M)
    assert len(entries) == len(re.findall(r"^[^\s#]", text, re.M)), f"{name}: another line"
    return {
        canonicalize_name(package): (version, re.findall(r"sha256:([0-9a-f]{64})\b", hashes))
        for package, version, hashes in entries
    }


def constraints() -> dict[str, str]:
    lines = (REPO / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_a_hash_of_each_and_the_versions_of_the_constraints(name: str) -> None:
    known = constraints()
    for package, (version, hashes) in locked(name).items():
        assert hashes, f"{name}: {package} has no hash; run .ci/lock"
        wanted = version if name in OWN_VERSIONS else known.get(package, version)
        assert version.split("+")[0] == wanted, f"{name}: {package}; run .ci/lock"


def test_the_locks_together_are_all_that_is_constrained() -> None:
    whole = {**locked("requirements/ci.txt"), **locked("requirements/torch.txt")}
    assert set(constraints()) <= set(whole), "run .ci/lock"
    assert "torch" in locked("requirements/torch-cpu.txt")
    assert "torch" not in locked("requirements/ci.txt")  # it is of one of the two


def test_what_the_project_needs_is_locked() -> None:
    """Of what it asks for itself; `make` runs pip check on the rest."""
    whole = {**locked("requirements/ci.txt"), **locked("requirements/torch.txt")}
    text = (REPO / "pyproject.toml").read_text()
    lines = re.findall(r'^  "([\w\[\],]+[<>=][^"]*)",$', text, re.M)
    wanted = [Requirement(line) for line in lines]
    assert len(wanted) >= 40
    for need in wanted:
        package = canonicalize_name(need.name)
        assert package in whole and need.specifier.contains(whole[package][0]), need


@pytest.mark.parametrize(
    "name", ["serving/requirements.lock", "serving/build.lock", "serving/image.lock"]
)
def test_the_container_installs_no_more_than_is_locked(name: str) -> None:
    """Nothing is resolved in the build, so what an installed package needs has to be there."""
    whole = locked(name)
    for package in whole:
        if package not in locked("requirements/ci.txt"):
            continue
        try:
            needs = [Requirement(line) for line in requires(package) or []]
        except ModuleNotFoundError:
            continue  # of another system
        for need in needs:
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert canonicalize_name(need.name) in whole, f"{package} needs {need}"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_and_no_place(name: str) -> None:
    text = (REPO / name).read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    assert not re.search(r"(?m)^(?!#).*[/\\](?!$)", text.replace("\\\n", "\n"))


def test_the_image_that_trains_has_what_buckets_and_trackers_need() -> None:
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    whole = locked("requirements/train.txt")
    for extra in ("s3", "gcs", "wandb", "trackio"):
        for need in map(Requirement, extras["optional-dependencies"][extra]):
            assert need.specifier.contains(whole[canonicalize_name(need.name)][0]), need
    for need in map(Requirement, extras["dependencies"]):
        assert canonicalize_name(need.name) in {*whole, *locked("requirements/torch.txt")}, need


def test_the_builds_take_hashed_packages_alone() -> None:
    """Each pip install in the image and in `make` asks for hashes, or installs the project."""
    image, make = (REPO / "Containerfile").read_text(), (REPO / "Makefile").read_text()
    installs = [line for line in image.splitlines() if "/pip install" in line]
    assert len(installs) == 6
    for line in installs:
        assert "--require-hashes" in line or "--no-deps --no-build-isolation" in line, line
    assert re.search(r"^LOCKED := .*--require-hashes", make, re.M)
    target = make.partition("$(STAMP): ")[2].partition("\n\n")[0]
    lines = [line for line in target.splitlines() if "$(PIP)" in line]
    assert lines and all("--no-deps --no-build-isolation" in line for line in lines)
    named = set(re.findall(r"^ARG BASE.*$", image, re.M))
    assert named == {"ARG BASE"}, "a tag floats; BASE is named by whoever builds"
