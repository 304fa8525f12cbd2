"""What a GPU would mind is found without one; and a step asks the device for nothing.

Whole runs of every kind: ``python -m tests.bench rehearse``.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from ptft.artifact import RunFiles
from ptft.distributed import ALONE
from ptft.errors import TrainingError
from ptft.train import loop
from ptft.train.device import RandomState
from ptft.train.gradients import Step
from ptft.train.parallel import share
from ptft.train.readings import MOST_UNREAD, Readings
from tests.support import steps
from tests.support.rehearsal import rehearse
from tests.support.runs import run
from tests.support.second_device import DEVICE, Seen, second_device


def test_a_run_on_a_second_device_is_the_cpus_and_waits_once_per_log(tmp_path: Path) -> None:
    found = rehearse(tmp_path, tmp_path / "no base", "GradCache")
    assert found.difference == 0.0
    assert (found.unasked, found.pageable) == ([], [])
    [waits_by_step] = found.waits
    assert [len(waits) for waits in waits_by_step] == [0, 0, 1, 0, 0, 1, 0], "log_every is 3"
    assert found.calls > 10_000, "it ran on the device"


# --- planted faults ---------------------------------------------------------------------------


@contextlib.contextmanager
def _step(plant: contextlib.AbstractContextManager, **changes: Any) -> Iterator[tuple[Step, Seen]]:
    """A step of GradCache on the second device, with a fault in it."""
    section = steps.recipe(optim__micro_batch=6, **changes)
    model = steps.learner(section, double=False)
    with second_device() as seen, plant:
        step = Step(section.objective, section.optim, share(model.to("cuda"), ALONE))
        seen.waits.clear()
        yield step, seen


def _plant(name: str, made: Callable[..., Any]) -> contextlib.AbstractContextManager:
    return mock.patch(name, made)


def _left(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor


def _blocking(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device)


def _unpinned(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)


_SCALE = "ptft.objective._shown_scale"
WAITING = {
    "item": (_plant(_SCALE, lambda scale: torch.tensor(scale.item())), "_local_scalar_dense"),
    "cpu": (_plant(_SCALE, lambda scale: scale.detach().cpu()), "a copy to the host"),
    "tolist": (_plant(_SCALE, lambda scale: torch.tensor(scale.tolist())), "tolist"),
    "a condition": (_plant(_SCALE, lambda scale: scale if scale > 0 else -scale), "_local_scalar"),
    "nonzero": (_plant(_SCALE, lambda scale: scale.nonzero().sum()), "nonzero"),
    "a mask": (_plant(_SCALE, lambda scale: scale[scale > 0].sum()), "index"),
    "places of the host": (_plant("ptft.train.gradients.send", _left), "by places of the host"),
    "a copy": (_plant("ptft.model.encoder.send", _blocking), "a copy to the device"),
}


@pytest.mark.parametrize("fault", WAITING)
def test_what_makes_the_host_wait_is_found_and_its_line_named(fault: str) -> None:
    plant, what = WAITING[fault]
    with _step(plant) as (step, seen):
        step(steps.batch(step.model))
    assert seen.waits
    assert all(what in wait for wait in seen.waits), seen.waits
    named = ("test_rehearsal.py", "gradients.py", "encoder.py")
    assert all(any(name in wait for name in named) for wait in seen.waits)


def test_without_a_fault_a_step_waits_for_nothing() -> None:
    with _step(contextlib.nullcontext()) as (step, seen):
        step(steps.batch(step.model))
    assert (seen.waits, seen.pageable) == ([], [])


def test_what_repeats_is_asked_of_the_host() -> None:
    """Ids on the device would make the host wait for what is unique among them."""
    with _step(contextlib.nullcontext()) as (step, seen):
        batch = steps.batch(step.model)
        assert batch.caption_ids is not None
        batch.caption_ids = batch.caption_ids.to("cuda")
        seen.waits.clear()
        step(batch)
    assert any("_unique2" in wait for wait in seen.waits)


@pytest.mark.parametrize("where", ["ptft.objective", "ptft.train.gradients"])
def test_a_tensor_on_the_wrong_device_is_an_error(where: str) -> None:
    section: dict[str, Any] = {"objective__kind": "classify"}
    if where == "ptft.objective":
        section = {}
    plant = _plant(f"{where}.send", _left)
    with (
        _step(plant, **section) as (step, _),
        pytest.raises(RuntimeError, match="same device, but found at least two"),
    ):
        step(steps.batch(step.model))


@pytest.mark.parametrize(
    "plant",
    [
        _plant("ptft.train.batches.send_tensor", _unpinned),
        mock.patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor),
    ],
    ids=["not asked", "asked in vain"],
)
def test_a_copy_that_cannot_go_on_is_found(plant: contextlib.AbstractContextManager) -> None:
    with _step(plant) as (step, seen):
        step(steps.batch(step.model))
    assert seen.pageable


def test_random_numbers_of_the_device_that_are_not_drawn_again_are_found() -> None:
    """GradCache's second pass must drop what its first did."""

    def forgetful(cls: type[RandomState], device: torch.device) -> RandomState:
        return RandomState(torch.get_rng_state(), None)

    found = []
    for plant in (
        contextlib.nullcontext(),
        mock.patch.object(RandomState, "now", classmethod(forgetful)),
    ):
        with _step(plant) as (step, _):
            for block in step.model.text.transformer.resblocks:
                block.mlp.append(torch.nn.Dropout(0.5))
            torch.manual_seed(0)
            step(steps.batch(step.model))
            gradients = {name: by.cpu() for name, by in steps.gradients(step.model).items()}
        found.append(gradients)
    assert steps.largest_gap(*found) > 1e-3


def test_tensors_of_the_device_are_what_they_say() -> None:
    with second_device() as seen:
        here = torch.arange(6.0).reshape(2, 3)
        there = here.to("cuda")
        assert (there.device, there.is_cuda, here.is_cuda) == (DEVICE, True, False)
        assert there.add_(1) is there
        assert torch.equal((there.T @ there).cpu(), (here + 1).T @ (here + 1))
        assert seen.waits and not seen.pageable
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            there.numpy()
        with pytest.raises(RuntimeError, match="same device"):
            here.add_(there)
        layer = torch.nn.Linear(3, 1, device="cuda")
        assert layer.weight.is_cuda
        layer(there).sum().backward()
        assert layer.weight.grad is not None and layer.weight.grad.is_cuda
    assert not torch.cuda.is_available() or torch.version.cuda


# --- the guard --------------------------------------------------------------------------------


def test_the_guard_stops_a_run_for_the_step_that_went_wrong(tmp_path: Path) -> None:
    """On a device it finds out later: for the same step, in the same words, and before any weights
    that took it are saved."""
    plain = loop._gradients

    def spoiled(context: Any, *arguments: Any) -> dict[str, Tensor]:
        figures = plain(context, *arguments)
        if context.state.progress.step == 4:
            figures["loss"] = figures["loss"] * torch.nan
        return figures

    bad = {}
    for name, device in (("here", contextlib.nullcontext()), ("there", second_device())):
        folder = tmp_path / name
        changes = {"run__log_every": 4, "run__checkpoint_every": 2, "run__compile": "off"}
        where = "cuda" if name == "there" else "cpu"
        with (
            device,
            mock.patch.object(loop, "_gradients", spoiled),
            pytest.raises(TrainingError, match=r"step 5: the loss is nan; its samples: shaded/"),
        ):
            run(folder, run__device=where, **changes)
        bad[name] = json.loads((folder / RunFiles.BAD_BATCH).read_text())
        saved = sorted(path.name for path in (folder / RunFiles.CHECKPOINTS).iterdir())
        assert saved == ["step-00000002", "step-00000004"]
    assert bad["here"] == bad["there"]
    assert [one["step"] for one in bad["there"]["recent"]] == [1, 2, 3, 4, 5]


def test_figures_are_read_in_order_and_no_more_are_kept_than_are_said() -> None:
    readings = Readings(ALONE)
    batch = steps.batch(steps.learner(steps.recipe()))
    assert readings.read() == []
    for step in range(1, MOST_UNREAD + 1):
        assert not readings.full
        readings.take(step, step * 12, batch, {"loss": torch.tensor(float(step))})
    assert readings.full
    found = readings.read()
    assert [(one.step, one.figures) for one in found] == [
        (step, {"loss": float(step)}) for step in range(1, MOST_UNREAD + 1)
    ]
    assert (found[0].first, found[0].batch.images, found[0].batch.names) == (12, None, batch.names)
    assert not readings.full
