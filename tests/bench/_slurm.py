"""A job of a real Slurm on this machine: what ``ptft launch`` wrote, taken away and run again."""

import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ptft.artifact import RunFiles
from ptft.launch import LaunchFile, System, render_launch, write_rendered
from tests.bench._nodes import STEPS, longer_recipe
from tests.bench._row import Row
from tests.bench.resume import difference
from tests.support.slurm_cluster import SlurmCluster, missing
from tests.support.warm import Warm, logged_steps

__all__ = ["BARS", "slurm_row"]

TIMES = 4
_SECONDS = 300.0  # in which something happens, however busy the machine is
_REPO = Path(__file__).parents[2]


def _asked() -> str | None:
    """Why there is no row; None: there is one."""
    absent = missing()
    return absent if absent or os.environ.get("PTFT_TEST_SLURM") else "asked for: PTFT_TEST_SLURM=1"


def slurm_row(folder: Path) -> Row | None:
    """Requeued by ``scontrol``, as by a preemption, at even steps; None where there is no Slurm."""
    if (reason := _asked()) is not None:
        print(f"Slurm: not run: {reason}")
        return None
    folder.mkdir()
    row, whole = Row(), longer_recipe(folder, "whole")
    with Warm(folder) as warm:
        child = warm.ptft("train", whole)
        assert child.wait() == 0, child.err.read_text()[-2000:]
    path = longer_recipe(folder, "taken")
    run = folder / "taken"
    with tempfile.TemporaryDirectory(dir="/tmp") as place, SlurmCluster(Path(place)) as slurm:
        number = slurm.run("sbatch", "--parsable", str(_script(path, folder)), folder=folder)
        number = number.strip()
        log = folder / f"taken-{number}.log"

        def until(condition: Callable[[], object]) -> None:
            deadline = time.monotonic() + _SECONDS
            while not condition():
                state = slurm.state(number)["JobState"]
                if state in ("FAILED", "TIMEOUT", "NODE_FAIL") or time.monotonic() > deadline:
                    raise RuntimeError(f"{state}: {log.read_text()[-3000:]}")
                time.sleep(0.1)

        for time_ in range(TIMES):
            until(lambda step=(time_ + 1) * STEPS // (TIMES + 1): _reached(run) >= step)  # type: ignore[misc]
            starts = len(_went_on(log))
            slurm.run("scontrol", "requeue", number)
            began = time.monotonic()
            until(lambda starts=starts: len(_went_on(log)) > starts)  # type: ignore[misc]
            before = _went_on(log)[-1]
            reached = _reached(run)
            until(lambda before=before: _reached(run) > before)  # type: ignore[misc]
            row.kills += 1
            row.lost.append(max(0, reached - before))
            row.back.append(time.monotonic() - began)
        until(lambda: slurm.state(number)["JobState"] == "COMPLETED")
    row.passed_over = log.read_text().count("going on from the")
    row.max_dw = difference(folder / "whole", run)
    return row


def _script(recipe: Path, folder: Path) -> Path:
    programs = shlex.quote(str(Path(sys.executable).parent))
    setup = f"export PATH={programs}:$PATH PYTHONPATH={shlex.quote(str(_REPO))} OMP_NUM_THREADS=1"
    launch = LaunchFile.model_validate({"cpus": 1, "slurm": {"setup": setup, "warn_seconds": 30}})
    return write_rendered(render_launch(str(recipe), (), launch, System.SLURM), folder)


def _reached(run: Path) -> int:
    return max(logged_steps(run / RunFiles.LOG), default=0)


def _went_on(log: Path) -> list[int]:
    text = log.read_text() if log.exists() else ""
    found = re.findall(r"goes on after step ([\d,]+)", text)
    return [int(one.replace(",", "")) for one in found]


BARS = {"slurm_kills": (">=", TIMES), "slurm_max_abs_dw": ("<=", 0.0)} if _asked() is None else {}
