"""The pipeline script of ``make demo`` at reduced size; the README's commands: ``tests.docs``."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.walk import environment as reader
from tests.serving.server import free_port


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return reader(tmp_path / "home")


def shell(line: str, where: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", line], cwd=where, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_pipeline_script_at_reduced_size(
    repo: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    small = "optim.global_batch=32 optim.samples_seen=64 optim.precision=fp32"
    environment = {**environment, "TRAIN": small, "PORT": str(free_port())}
    folder = tmp_path / "speedrun"
    out = shell(f"recipes/speedrun.sh {folder}", repo, environment)
    for domain in ("shaded", "line"):
        assert re.search(rf"^{domain} +0\.4%( +[\d.]+%){{3}}$", out, re.MULTILINE), out
    assert re.search(r"^kept of shaded( +[\d.]+%){2}$", out, re.MULTILINE), out
    assert re.search(r"model folder .*\(sha256:[0-9a-f]{64}\)", out), out
    assert out.rstrip().splitlines()[-1].startswith("Serve it:  PTFT_MODEL=")
    digest = json.loads((folder / "model" / "ptft.json").read_text())["digest"]
    page = (folder / "results.html").read_text()
    assert f"results          {folder / 'results.html'}" in out
    assert digest in page
    assert digest in out
