"""A checkpoint that is written beside the steps is of one step, and whole or not there."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ptft.artifact import RunFiles
from ptft.checkpoint import Background, TrainProgress, checkpoints, load_checkpoint
from ptft.checkpoint.copies import HostCopies
from ptft.errors import CheckpointError
from ptft.model import DualEncoder
from ptft.recipe.load import parse_recipe
from ptft.runs.folder import read_run
from ptft.speech import SILENT
from ptft.train import train
from ptft.train.context import Observer
from tests.support.tiny import build, towers_section


class Parts:
    """A model, its optimiser and an average, as a run has them."""

    def __init__(self) -> None:
        self.model: DualEncoder = build(towers_section())
        named = list(self.model.named_parameters())
        group = {"params": [p for _, p in named], "names": [n for n, _ in named]}
        self.optimizer = torch.optim.AdamW([group], lr=0.01)
        self.average = {f"ema/{name}": p.detach().clone() for name, p in named}
        self.progress = TrainProgress()

    def step(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.optimizer.step()
        for tensor in self.average.values():
            tensor.lerp_(torch.ones(()), 0.5)
        self.progress.step += 1
        self.progress.seen += 4

    def tensors(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        moments = {
            f"{key}/{name}": state[parameter][key]
            for name, parameter in self.model.named_parameters()
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
        found = {**self.model.state_dict(), **moments, **self.average}
        return {name: tensor.detach().clone() for name, tensor in found.items()}

    def begin(self, writer: Background, folder: Path) -> None:
        writer.begin(folder, self.model, self.optimizer, self.progress, self.average, copied=True)


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch, at: Callable[[], Any]) -> Iterator[None]:
    """Within, a checkpoint that is complete but for its last rename waits, then does ``at``."""
    real = Path.rename

    def wait(self: Path, target: Path) -> Path:
        if self.name.startswith(".step"):
            at()
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", wait)
        yield


def test_what_changes_while_it_is_written_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, writer, let = Parts(), Background(), threading.Event()
    run.step()
    run.begin(writer, tmp_path)
    assert writer.finish() == TrainProgress(step=1, seen=4)
    run.step()
    then = run.tensors()
    with held(monkeypatch, let.wait):
        run.begin(writer, tmp_path)  # into the memory of the one before
        run.step()
        run.progress.guard["seen"] = "later"
        assert writer.busy and writer.pending
        assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]
        let.set()
        assert writer.finish() == TrainProgress(step=2, seen=8)
    assert not (writer.busy or writer.pending) and writer.finish() is None
    writer.close()
    other = Parts()
    found = load_checkpoint(tmp_path / "step-00000002", other.model, other.optimizer, other.average)
    assert found == TrainProgress(step=2, seen=8)
    again = other.tensors()
    assert all(torch.equal(again[name], then[name]) for name in then)
    assert any(not torch.equal(run.tensors()[name], then[name]) for name in then)


def test_a_kill_while_it_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, writer = Parts(), Background()
    run.step()
    run.begin(writer, tmp_path)
    writer.finish()
    writer.close()
    child = os.fork()
    if child == 0:  # writes the next one, all but its rename
        torch.set_num_threads(1)  # the threads of a pool are not there after a fork
        with held(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            run.step()
            late = Background()
            run.begin(late, tmp_path)
            late.finish()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert (tmp_path / ".step-00000002.partial" / "state.json").is_file()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]
    other = Parts()
    path = checkpoints(tmp_path)[0]
    load_checkpoint(path, other.model, other.optimizer, other.average)
    assert all(torch.equal(value, other.tensors()[name]) for name, value in run.tensors().items())


def test_what_cannot_be_written_is_told_when_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    run, writer = Parts(), Background()
    run.step()
    with held(monkeypatch, full):
        run.begin(writer, tmp_path)
        with pytest.raises(CheckpointError, match=r"step-00000001: cannot be written: .* No space"):
            writer.finish()
        run.begin(writer, tmp_path)
        with pytest.raises(CheckpointError, match="No space left"):
            writer.close()  # a run that ends by another error
    assert list(tmp_path.iterdir()) == []
    run.begin(writer, tmp_path)  # with room again
    assert writer.close() == TrainProgress(step=1, seen=4)


def test_copies_are_exact_and_take_the_memory_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptft.checkpoint.copies.COPY_BLOCK", 1024)
    conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tied = torch.arange(3, dtype=torch.int64)
    part = {
        "conv": conv.weight.detach(),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "half": torch.tensor([[0.5, -2.0]], dtype=torch.bfloat16),
        "flags": torch.tensor([True, False, True]),
        "none": torch.empty(0, 4),
        "long": torch.arange(900, dtype=torch.int32)[::3],
        "tied": tied,
        "again": tied,
    }
    copies = HostCopies()
    first = copies.take({"a": part, "b": {"tied": tied}})
    taken = copies.size
    assert sum(tensor.nbytes for tensor in part.values()) <= taken < 4096
    for found, wanted in ((first["a"], part), (first["b"], {"tied": tied})):
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
            assert found[name].is_contiguous()
    places = [tensor.data_ptr() for tensor in first["a"].values()]
    tied += 1
    assert first["a"]["tied"].tolist() == [0, 1, 2] == first["b"]["tied"].tolist()
    second = copies.take({"a": part, "b": {"tied": tied}})
    assert [tensor.data_ptr() for tensor in second["a"].values()] == places
    assert second["a"]["tied"].tolist() == [1, 2, 3] and copies.size == taken


class EnoughError(Exception):
    """What an observer gives a run up by."""


def test_a_run_that_is_given_up_waits_for_the_checkpoint_that_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let = threading.Event()

    def give_up(model: DualEncoder, number: int) -> None:
        let.set()
        raise EnoughError

    values = {
        "name": "mine",
        "model": towers_section(),
        "data": {"kind": "scenes", "size": 32, "train": 16, "val": 8, "test": 8},
        "optim": {"samples_seen": 40, "global_batch": 8, "ema": 0.9, "precision": "fp32"},
        "run": {
            "dir": str(tmp_path / "run"),
            "checkpoint_every": 2,
            "page": False,
            "trackers": [],
            "workers": 0,
            "threads": 1,
            "device": "cpu",
        },
    }
    recipe = parse_recipe(values, "test")
    with held(monkeypatch, let.wait), pytest.raises(EnoughError):
        train(recipe, log=SILENT, observer=Observer([0.6], give_up))
    folder = tmp_path / "run"
    assert [path.name for path in checkpoints(folder / RunFiles.CHECKPOINTS)] == ["step-00000002"]
    assert read_run(folder).step == 2
    assert train(recipe, resume=True, log=SILENT).finished
    steps = [path.name for path in checkpoints(folder / RunFiles.CHECKPOINTS)]
    assert steps[0] == "step-00000005" and "step-00000004" in steps
