"""CONTRIBUTING.md: its examples run as they stand, and what it names is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## An? (.+?)\n.*?```python\n(.*?)```", TEXT, re.DOTALL | re.M))


def test_there_is_one_of_each_kind() -> None:
    assert list(EXAMPLES) == ["data source", "objective", "adapter"]
    for code in EXAMPLES.values():
        assert len([line for line in code.splitlines() if line.strip()]) < 60


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_example_runs(kind: str, tmp_path: Path, repo: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[kind]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_what_it_names_is_there(repo: Path) -> None:
    named = re.findall(r"`((?:ptft|tests|charts|serving|\.ci)/[\w./]+)`", TEXT)
    named += re.findall(r"\]\(([\w./]+)\)", TEXT)
    assert len(named) > 30
    assert [path for path in named if not (repo / path).exists()] == []
    for path, name in re.findall(r"`(ptft/[\w/]+\.py)` and its name in `(\w+)`", TEXT):
        assert re.search(rf"^{name} = ", (repo / path).read_text(encoding="utf-8"), re.M), name
    floors = {path.partition("/")[2].partition(".")[0] for path in named if path[:5] == "ptft/"}
    ours = {
        path.stem for path in (repo / "ptft").iterdir() if path.is_dir() and path.stem[0] != "_"
    }
    assert ours <= floors, "a package that the table leaves out"
