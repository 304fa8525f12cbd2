"""What a run survives, and how it ends where it cannot go on."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import RunFiles
from ptft.checkpoint import checkpoints
from ptft.errors import TrainingError, UsageError
from ptft.runs.folder import lock_run
from ptft.train.guard import Guard
from tests.support.killed import start, warm
from tests.support.runs import BATCH, STEPS, interrupt, largest_difference, run
from tests.support.warm import Warm, logged_steps

__all__ = ["warm"]  # a fixture


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(folder).finished
    return folder


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RunFiles.LOG).read_text().splitlines()]


def test_killed_at_any_moment_a_run_goes_on_to_the_same_weights(
    warm: Warm, whole: Path, tmp_path: Path
) -> None:
    folder, draw = tmp_path / "run", random.Random(0)
    place = folder / RunFiles.CHECKPOINTS
    moments = {
        "before anything": lambda: (folder / RunFiles.RUN).is_file(),
        "while it saves": lambda: list(place.glob(".step-*.partial/*")),
        "between": lambda: (place / "step-00000003").is_dir(),
        "while it saves again": lambda: list(place.glob(".step-*.partial/optimizer*")),
    }
    for number, condition in enumerate(moments.values()):
        child = start(warm, folder, *(["--resume"] * (number > 0)), run__checkpoint_every=1)
        assert child.wait_until(condition, interval=0.0005), child.err.read_text()
        time.sleep(draw.uniform(0.0, 0.02))
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert run(folder, resume=True, run__checkpoint_every=1).finished
    assert largest_difference(whole, folder) == 0.0
    assert [line["step"] for line in log_of(folder)] == list(range(1, STEPS + 1))
    assert [a["loss"] for a in log_of(folder)] == [b["loss"] for b in log_of(whole)]
    left = sorted(path.name for path in place.iterdir())
    assert left == ["step-00000007", "step-00000008"]


def test_sigterm_saves_and_a_resume_goes_on(warm: Warm, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = start(warm, folder, run__checkpoint_every=100)
    assert child.wait_until(lambda: logged_steps(folder / RunFiles.LOG))
    child.kill(signal.SIGTERM)
    assert child.wait() in (0, 143), child.err.read_text()  # 0: it was at its last step
    assert child.out.read_text().strip() == str(folder)
    [newest] = checkpoints(folder / RunFiles.CHECKPOINTS)
    assert int(newest.name.removeprefix("step-")) == log_of(folder)[-1]["step"]
    assert run(folder, resume=True).finished
    assert largest_difference(whole, folder) == 0.0


def test_a_full_disk_ends_a_run_with_one_error_and_the_last_good_checkpoint(
    warm: Warm, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, 3)
    for limit, message in ((50_000, "cannot be written"), (100, "with room there, --resume goes")):
        child = start(warm, folder, "--resume", limit=limit)
        assert child.wait() == 1
        lines = child.err.read_text().splitlines()
        assert [line for line in lines if line.startswith("ptft: ")] == lines[-1:]
        assert "File too large" in lines[-1]
        assert message in lines[-1]
        assert not [line for line in lines if "Traceback" in line]
        left = sorted(path.name for path in (folder / RunFiles.CHECKPOINTS).iterdir())
        assert left == ["step-00000003"]
    assert run(folder, resume=True).finished
    assert largest_difference(whole, folder) == 0.0


def test_only_one_process_trains_in_a_folder(whole: Path, tmp_path: Path) -> None:
    before = (whole / RunFiles.RUN).read_text()
    with lock_run(tmp_path / "new"), lock_run(whole):
        with pytest.raises(UsageError, match=r"process \d+ on .* trains here already"):
            run(tmp_path / "new")
        with (
            pytest.raises(UsageError, match="trains here already"),
            lock_run(whole),
        ):
            pass
    assert (whole / RunFiles.RUN).read_text() == before
    with lock_run(whole):  # let go of, it can be had again
        pass


def test_a_run_that_goes_on_elsewhere_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, 3)
    with lock_run(folder), pytest.raises(UsageError, match="trains here already"):
        run(folder, resume=True)
    assert run(folder, resume=True).finished


def test_a_loss_that_is_not_finite_leaves_its_batch(warm: Warm, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    changes = {"optim__lr": 1e30, "optim__clip_grad_norm": None, "optim__warmup": 0.0}
    child = start(warm, folder, run__checkpoint_every=1, **changes)
    assert child.wait() == 1
    last = child.err.read_text().splitlines()[-1]
    assert last.startswith("ptft: step ")
    assert str(folder / RunFiles.BAD_BATCH) in last
    bad = json.loads((folder / RunFiles.BAD_BATCH).read_text())
    assert bad["reason"] in last
    assert bad["loss"] in ("nan", "inf") or bad["grad_norm"] in ("nan", "inf")
    first = (bad["step"] - 1) * BATCH
    assert [sample["position"] for sample in bad["samples"]] == list(range(first, first + BATCH))
    assert all("train/" in sample["name"] for sample in bad["samples"])
    assert all(len(sample["caption"].split()) > 2 for sample in bad["samples"])
    assert [one["step"] for one in bad["recent"]] == list(range(1, bad["step"] + 1))
    newest = checkpoints(folder / RunFiles.CHECKPOINTS)[0]
    assert newest.name == f"step-{bad['step'] - 1:08d}", "the last good step"


def test_an_exploding_loss_stops_the_run(tmp_path: Path) -> None:
    changes = {
        "objective__kind": "classify",
        "optim__samples_seen": 40 * BATCH,
        "optim__lr": 10.0,
        "optim__schedule": "constant",
        "optim__warmup": 0.9,
        "optim__stop_above": 1.0,
    }
    with pytest.raises(TrainingError, match=r"the loss explodes: .*optim\.stop_above: 1"):
        run(tmp_path / "run", **changes)
    bad = json.loads((tmp_path / "run" / RunFiles.BAD_BATCH).read_text())
    assert len(bad["samples"]) == BATCH
    assert all(isinstance(sample["label"], str) for sample in bad["samples"])


def verdicts(losses: list[float], *, limit: float | None = 3.0, cut: int = 0) -> list[int]:
    """Steps at which a run would stop; at ``cut`` the state goes through JSON, as on a resume."""
    guard, found = Guard(limit, {}), []
    for step, loss in enumerate(losses):
        if step == cut:
            guard = Guard(limit, json.loads(json.dumps(guard.state)))
        if guard.check(step, loss, 1.0, loss_scale=1.0):
            found.append(step)
    return found


def healthy() -> dict[str, list[float]]:
    draw = random.Random(0)
    return {
        "pretraining": [5.5 * 0.99**n + draw.gauss(0, 0.2) for n in range(600)],
        "sigmoid loss from its bias": [12 * 0.97**n + 2 for n in range(200)],
        "fine-tuning near 0": [abs(draw.gauss(0.01, 0.3)) for _ in range(400)],
        "tiny batches": [draw.choice([0.0, 0.0, 0.1, 4.0]) for _ in range(400)],
        "label smoothing": [1.2 + draw.gauss(0, 0.05) for _ in range(200)],
        "a warm-up that overshoots": [1.0] * 30 + [3.5] * 30 + [0.8] * 100,
        "one broken batch": [0.3] * 50 + [1e9] + [0.3] * 50,
        "a first batch that is easy": [0.0] + [2.9] * 100,
    }


@pytest.mark.parametrize("name", healthy())
def test_no_alarm_where_a_loss_is_well(name: str) -> None:
    assert verdicts(healthy()[name]) == []


@pytest.mark.parametrize(
    ("losses", "within"),
    [
        ([0.05] * 40 + [5.5] * 60, 20),  # collapsed to guessing among 256
        ([2.0] * 40 + [2.0 + n for n in range(60)], 20),
        ([6.0] * 40 + [1e12] * 10, 3),
        ([5.0, *[800.0] * 30], 20),  # from the first step on: judged after 20
    ],
)
def test_an_explosion_is_found_soon_and_the_same_after_a_resume(
    losses: list[float], within: int
) -> None:
    found = verdicts(losses)
    begin = next(step for step, loss in enumerate(losses) if loss > losses[0])
    assert begin < found[0] <= begin + within
    assert verdicts(losses, cut=begin + 1) == found
    assert verdicts(losses, cut=begin + within) == found
    assert verdicts(losses, limit=None) == []


def test_a_gradient_that_is_not_finite_stops_unless_the_loss_is_scaled() -> None:
    guard = Guard(None, {})
    assert guard.check(1, 0.5, float("inf"), loss_scale=65536.0) is None, "the scaler skips it"
    assert "gradient's norm is inf" in str(guard.check(2, 0.5, float("inf"), loss_scale=1.0))
    assert "gradient's norm is nan" in str(guard.check(3, 0.5, float("nan"), loss_scale=1.0))
    assert "the loss is nan" in str(guard.check(4, float("nan"), 1.0, loss_scale=65536.0))
