"""The workflow that runs on every push: its schema, what it runs, and what it trusts."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def path(repo: Path) -> Path:
    (found,) = (repo / ".github" / "workflows").iterdir()
    return found


@pytest.fixture
def workflow(path: Path) -> dict[str, Any]:
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in read.items()}  # YAML 1.1's "on"


def test_it_has_the_form_that_github_reads(path: Path) -> None:
    """Held against the published schema, as check-jsonschema has it at hand."""
    pytest.importorskip("check_jsonschema")
    command = ["check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs_what_anybody_runs_on_each_python(repo: Path, workflow: dict[str, Any]) -> None:
    (job,) = workflow["jobs"].values()
    versions = job["strategy"]["matrix"]["python"]
    project = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    classified = [text.rpartition(" :: ")[2] for text in project["classifiers"]]
    assert versions == [text for text in classified if re.fullmatch(r"3\.\d+", text)]
    assert project["requires-python"] == f">={versions[0]}"
    *_, last = job["steps"]
    assert last == {"run": ".ci/run"}
    assert (repo / ".ci" / "run").stat().st_mode & 0o111
    set_up = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert set_up == [{"python-version": "${{ matrix.python }}"}]
    assert set(workflow["on"]) == {"push", "pull_request"}


def test_it_may_read_and_no_more(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    assert "secrets" not in yaml.safe_dump(workflow)


def test_actions_of_others_are_pinned_to_a_commit_and_say_its_version(path: Path) -> None:
    used = re.findall(r"uses: *(.+)", path.read_text(encoding="utf-8"))
    assert used
    for one in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one), one
