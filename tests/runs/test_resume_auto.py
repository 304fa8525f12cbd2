"""One command that starts a run and goes on with it; what stops one, and with which exit code."""

import signal
import time
from pathlib import Path

import pytest

from ptft.artifact import RunFiles
from ptft.errors import UsageError
from ptft.recipe import load_recipe
from ptft.runs.folder import read_run
from ptft.train import exit_code, train
from ptft.train.part import Deadline, Reason, Stop
from tests.support.heard import Heard
from tests.support.killed import start, warm
from tests.support.runs import BATCH, interrupt, largest_difference, recipe, run
from tests.support.warm import Warm, logged_steps

__all__ = ["warm"]  # the fixture

QUICK = {"optim__samples_seen": BATCH}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(folder).finished
    return folder


def test_it_begins_goes_on_and_has_nothing_left_to_do(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, 4, resume="auto")
    heard = Heard()
    assert train(recipe(folder), resume="auto", log=heard).finished
    assert heard.lines[0] == f"{folder}: goes on"
    assert f"{folder}: goes on after step 4" in heard.lines
    assert largest_difference(whole, folder) == 0.0
    heard = Heard()
    assert train(recipe(folder), resume="auto", log=heard).finished
    assert heard.lines == [f"{folder}: goes on", f"{folder}: finished before; nothing to do"]


def test_without_a_folder_it_takes_the_run_of_the_recipes_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert str(run(tmp_path, resume="auto", run__dir=None, **QUICK).folder) == "runs/tiny"
    with pytest.raises(UsageError, match=r"runs/tiny: a run of another recipe: seed is 0 there"):
        run(tmp_path, resume="auto", run__dir=None, seed=1, **QUICK)


def test_a_run_that_was_killed_as_it_began_begins_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (RunFiles.LOCK, RunFiles.RECIPE, ".run.json.0f.partial"):
        (folder / name).write_text("")
    assert run(folder, resume="auto", **QUICK).finished
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="something is there that is no run"):
        run(other, resume="auto", **QUICK)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_another_recipe_is_refused_by_its_keys_and_may_be_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, 4)
    changed = {"optim__lr": 5e-4, "optim__samples_seen": 6 * BATCH}
    before = (folder / RunFiles.RECIPE).read_bytes()
    for resume in (True, "auto"):
        with pytest.raises(UsageError) as refusal:
            run(folder, resume=resume, **changed)  # type: ignore[arg-type]
        told = str(refusal.value)
        assert "optim.lr is 0.001 there and 0.0005 here" in told
        assert "optim.samples_seen is 128 there and 96 here" in told
        assert "--accept-changes" in told
    assert (folder / RunFiles.RECIPE).read_bytes() == before

    made = recipe(folder, **changed)
    assert train(made, resume="auto", accept_changes=True, log=Heard()).finished
    record = read_run(folder)
    assert (record.step, record.total) == (6, 6 * BATCH)
    (entry,) = record.accepted
    assert entry["step"] == 4
    assert [change.split()[0] for change in entry["changes"]] == ["optim.lr", "optim.samples_seen"]
    assert (folder / RunFiles.BEGAN).read_bytes() == before
    assert load_recipe(folder / RunFiles.RECIPE).optim.lr == 5e-4
    assert run(folder, resume="auto", **changed).finished, "what was accepted is its recipe now"
    with pytest.raises(UsageError, match=r"finished with its recipe as it was: optim\.lr"):
        train(recipe(folder), resume="auto", accept_changes=True, log=Heard())


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGUSR1, 75), (signal.SIGUSR2, 75)],
    ids=["SIGINT", "SIGUSR1", "SIGUSR2"],
)
def test_a_signal_stops_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    interrupt(monkeypatch, tmp_path / "run", 2, number=number, code=code)
    assert read_run(tmp_path / "run").step == 2


def test_out_of_time_it_stops_and_goes_on(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run(folder, resume="auto", run__max_minutes=1e-9)
    assert (exit_code(result), result.out_of_time, result.signal) == (75, True, None)
    assert read_run(folder).step == 1, "each part takes a step"
    assert run(folder, resume="auto", run__max_minutes=60).finished
    assert largest_difference(whole, folder) == 0.0


def test_what_is_left_before_a_limit() -> None:
    now = time.monotonic()
    assert not Deadline(10, now).is_near()
    assert not Deadline(10, now - 9.4 * 60).is_near(), "30 s, 5 %, are left for a checkpoint"
    assert Deadline(10, now - 9.6 * 60).is_near()
    for beside in ("upload", "saving"):
        deadline = Deadline(10, now - 9.4 * 60)
        setattr(deadline, beside, lambda: 30.0)
        assert deadline.is_near(), beside
    assert Deadline(1000, now - 997 * 60).is_near() is False, "two minutes at most"
    assert Deadline(1000, now - 999 * 60).is_near()


def test_a_signal_that_a_launcher_passes_on_twice_is_one() -> None:
    with Stop() as stop, stop.armed():
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert stop.asked()
        assert stop.reason == Reason(signal=signal.SIGTERM)


def test_before_the_first_step_a_warning_waits_and_a_signal_to_end_does_not() -> None:
    # a shell's background job ignores SIGINT, and so would pytest there
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGUSR1)
            assert stop.reason == Reason(signal.SIGUSR1, late=True)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command(warm: Warm, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    folder.parent.mkdir()
    child = start(warm, folder, "--resume", "auto", optim__samples_seen=1000 * BATCH)
    assert child.wait_until(lambda: len(logged_steps(folder / RunFiles.LOG)) > 1)
    child.kill(signal.SIGUSR1)
    assert child.wait() == 75, child.err.read_text()
    made = folder.with_name("recipe.yaml")
    child = warm.ptft("train", "--resume", made)  # alone it has no value
    reached = logged_steps(folder / RunFiles.LOG)[-1]
    assert child.wait_until(lambda: logged_steps(folder / RunFiles.LOG)[-1:] > [reached])
    child.kill(signal.SIGTERM)
    assert child.wait() == 143, child.err.read_text()
    child = warm.ptft("train", made, "--resume=often")
    assert child.wait() == 2
    assert "--resume: 'often'; allowed: auto, or no value" in child.err.read_text()
    child = warm.ptft("train", made, "--accept-changes")
    assert child.wait() == 2
