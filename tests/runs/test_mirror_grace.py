"""A run that is stopped waits for the last copy to its mirror, for its grace and no longer."""

import shutil
import threading
from pathlib import Path
from typing import Any

from ptft.train import exit_code, train
from tests.support.faulty_store import FaultyStore
from tests.support.heard import Heard
from tests.support.mirrors import whole
from tests.support.runs import largest_difference, recipe, run

__all__ = ["whole"]  # a fixture


def _stopped(folder: Path, answers: threading.Event, heard: Heard, **changes: Any) -> None:
    """A run that is out of time after a step, to a store that hangs until the event."""
    FaultyStore.begin()
    FaultyStore.fails = staticmethod(  # type: ignore[method-assign]
        lambda operation, path: operation == "write" and "objects" in path and not answers.wait()
    )
    changes |= {"run__mirror": "faulty://bucket/x", "run__max_minutes": 1e-9}
    assert exit_code(train(recipe(folder, **changes), log=heard)) == 75


def test_a_store_that_hangs_is_left_after_the_grace(tmp_path: Path) -> None:
    answers, heard = threading.Event(), Heard()
    _stopped(tmp_path / "run", answers, heard, run__mirror_grace_seconds=0.2)
    answers.set()
    assert heard.lines[-1] == (
        "faulty://bucket/x: nothing is mirrored yet; 0.2 s were too short for the last copy"
    )


def test_a_store_that_answers_within_the_grace_has_the_last_step(
    whole: Path, tmp_path: Path
) -> None:
    answers = threading.Event()
    heard = Heard(lambda: "waiting for the last copy" in heard.lines[-1] and answers.set())
    folder = tmp_path / "run"
    _stopped(folder, answers, heard, run__mirror_grace_seconds=600.0)
    assert "faulty://bucket/x: waiting for the last copy, at most 600 s" in heard.lines
    assert heard.lines[-1] == "faulty://bucket/x: mirrored to step 1"
    shutil.rmtree(folder)
    assert run(folder, resume="auto", run__mirror="faulty://bucket/x").finished
    assert largest_difference(whole, folder) == 0.0
