"""A real Slurm on this machine runs what ``ptft launch`` wrote, takes it away, runs it again.

It takes minutes, so it is asked for: ``PTFT_TEST_SLURM=1 pytest tests/launch/test_slurm.py``.
"""

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptft.artifact import RunFiles
from ptft.compare import compare
from ptft.launch import LaunchFile, Rendered, System, render_launch, write_rendered
from ptft.recipe import dump_recipe
from ptft.speech import SILENT
from tests.bench._workers import figures
from tests.support.comparisons import comparison
from tests.support.runs import largest_difference, recipe, run
from tests.support.slurm_cluster import SlurmCluster, missing

WHY = missing() or ("" if os.environ.get("PTFT_TEST_SLURM") else "minutes: PTFT_TEST_SLURM=1")
pytestmark = pytest.mark.skipif(bool(WHY), reason=f"a real Slurm: {WHY}")

OPTIM = {"samples_seen": 960, "global_batch": 16, "lr": 1e-3, "precision": "fp32"}
SECONDS = 400  # in which a job is done, however busy the machine is


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, SlurmCluster(Path(folder)) as cluster:
        yield cluster


def job(path: Path, repo: Path, **machines: int) -> Rendered:
    """An sbatch script for a recipe file."""
    programs = Path(sys.executable).parent
    setup = f"export PATH={shlex.quote(str(programs))}:$PATH PYTHONPATH={shlex.quote(str(repo))}"
    setup += " OMP_NUM_THREADS=1"
    values = {"cpus": 1, "slurm": {"setup": setup, "warn_seconds": 30}, **machines}
    launch = LaunchFile.model_validate(values)
    return render_launch(str(path), (), launch, System.SLURM)


def wait(slurm: SlurmCluster, number: str, wanted: str) -> dict[str, str]:
    deadline = time.monotonic() + SECONDS
    while (state := slurm.state(number))["JobState"] != wanted:
        assert time.monotonic() < deadline, state
        assert state["JobState"] not in ("FAILED", "TIMEOUT", "NODE_FAIL"), state
        time.sleep(0.5)
    return state


@pytest.mark.parametrize("way", ["requeue", "warning"])
def test_a_job_that_is_taken_away_ends_with_the_same_weights(
    way: str, slurm: SlurmCluster, repo: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my recipe.yaml"  # of 60 steps
    path.write_text(dump_recipe(recipe(tmp_path / "run", optim=OPTIM, run__threads=1)))
    script = write_rendered(job(path, repo), tmp_path)
    number = slurm.run("sbatch", "--parsable", str(script), folder=tmp_path).strip()
    deadline = time.monotonic() + SECONDS
    log = tmp_path / f"tiny-{number}.log"
    while not list((tmp_path / "run" / RunFiles.CHECKPOINTS).glob("*/*")):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    if way == "requeue":  # what preemption does
        slurm.run("scontrol", "requeue", number)
    else:  # what --signal does before the time limit: to the step's processes alone
        slurm.run("scancel", "--signal=USR2", number)
    state = wait(slurm, number, "COMPLETED")
    assert int(state["Restarts"]) >= 1, log.read_text()
    whole = run(tmp_path / "whole", optim=OPTIM, run__threads=1)
    assert largest_difference(tmp_path / "run", whole.folder) == 0


def test_an_array_of_workers_leaves_the_table_of_one_process(
    slurm: SlurmCluster, repo: Path, tmp_path: Path
) -> None:
    """Of two workers one is taken away in the middle, and queued again."""
    section = comparison(tmp_path, seeds=3, budgets=[8, 16])
    script = write_rendered(job(tmp_path / "comparison.yaml", repo, workers=2), tmp_path)
    number = slurm.run("sbatch", "--parsable", str(script), folder=tmp_path).strip()
    folder = Path(section.run.dir or "")
    deadline = time.monotonic() + SECONDS
    while not figures(folder):
        assert time.monotonic() < deadline, slurm.state(f"{number}_0")
        time.sleep(0.1)
    slurm.run("scontrol", "requeue", f"{number}_1")
    for worker in range(2):
        wait(slurm, f"{number}_{worker}", "COMPLETED")
    found = figures(folder)
    there = section.run.model_copy(update={"dir": str(tmp_path / "alone")})
    alone = compare(section.model_copy(update={"run": there}), log=SILENT)
    assert found and found == figures(alone.folder)
