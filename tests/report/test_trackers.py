"""Trackers: one run over a resume, and a clear word where one is not installed.

W&B's and trackio's pins differ from BentoML's and ptft's own, so neither is in the tested set;
their tests run where they are installed.
"""

import importlib.util
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import RunFiles
from ptft.errors import MissingExtraError
from ptft.recipe import dump_recipe
from tests.support.runs import STEPS, interrupt, recipe, run

WANDB = importlib.util.find_spec("wandb") is not None
TRACKIO = importlib.util.find_spec("trackio") is not None


def test_tensorboard_has_each_step_once_though_a_part_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ptft.train import loop

    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        steps = iter(range(STEPS))
        plain = loop.after_step

        def dies(*args: Any, **kwargs: Any) -> bool:
            if next(steps) == 4:  # two steps after the checkpoint of step 3
                raise RuntimeError("killed")
            return plain(*args, **kwargs)

        patch.setattr(loop, "after_step", dies)
        run(folder, run__trackers=["tensorboard"])
    run(folder, resume=True, run__trackers=["tensorboard"])

    events = EventAccumulator(str(folder / RunFiles.TENSORBOARD), purge_orphaned_data=True)
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("loss")}
    logged = [json.loads(line) for line in (folder / RunFiles.LOG).read_text().splitlines()]
    assert len(events.Scalars("loss")) == STEPS
    assert found == pytest.approx({line["step"]: line["loss"] for line in logged})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("wandb", marks=pytest.mark.skipif(WANDB, reason="it is installed")),
        pytest.param("trackio", marks=pytest.mark.skipif(TRACKIO, reason="it is installed")),
    ],
)
def test_a_tracker_that_is_not_installed_is_told_of_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(
        MissingExtraError, match=rf"{name} is not installed; run: pip install '\.\[{name}"
    ):
        run(tmp_path / "run", run__trackers=["tensorboard", name])
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not WANDB, reason="wandb is not installed (its pins and BentoML's differ)")
def test_wandb_keeps_one_run_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, 4, run__trackers=["wandb"])
    run(folder, resume=True, run__trackers=["wandb"])
    parts = sorted((folder / "wandb").glob("offline-run-*"))
    assert len({part.name.rpartition("-")[2] for part in parts}) == 1


@pytest.mark.skipif(not TRACKIO, reason="trackio is not installed (it wants an older Pillow)")
def test_trackio_keeps_one_run_over_a_resume_and_stdout_for_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    folder = tmp_path / "run"
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe(folder, run__trackers=["trackio"])))
    interrupt(monkeypatch, folder, 4, run__trackers=["trackio"])
    command = [sys.executable, "-m", "ptft", "train", str(path), "--resume"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"{folder}\n"

    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, step, metrics from metrics").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    losses = {step: json.loads(metrics)["loss"] for _, step, metrics in rows}
    logged = [json.loads(line) for line in (folder / RunFiles.LOG).read_text().splitlines()]
    assert losses == pytest.approx({line["step"]: line["loss"] for line in logged})
