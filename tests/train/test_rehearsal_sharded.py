"""What a GPU would mind of FSDP2 and of an export is found without one.

Runs of two ranks: ``python -m tests.bench rehearse``.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ptft.distributed import World
from ptft.model import DualEncoder
from ptft.train.gradients import Step
from ptft.train.parallel import share
from tests.support import steps
from tests.support.rehearsal import rehearse_export
from tests.support.runs import run
from tests.support.second_device import Seen, second_device


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Of one rank: its weights are sharded, gathered and reduced as those of more are."""
    monkeypatch.setenv("LOCAL_RANK", "0")  # as torchrun does
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield World(tensors=dist.group.WORLD, host=dist.group.WORLD)
    dist.destroy_process_group()


@contextlib.contextmanager
def _step(
    world: World, plant: contextlib.AbstractContextManager
) -> Iterator[tuple[Callable[[], Any], Seen]]:
    section = steps.recipe(optim__micro_batch=6)
    model = steps.learner(section, double=False)
    with second_device() as seen, plant:
        parallel = share(model.to("cuda"), world, "fsdp")
        assert isinstance(model.logit_scale, DTensor) and model.device.type == "cuda"
        step = Step(section.objective, section.optim, parallel)
        seen.waits.clear()
        yield lambda: step(steps.batch(model)), seen


def test_a_sharded_step_waits_for_nothing(world: World) -> None:
    with _step(world, contextlib.nullcontext()) as (step, seen):
        step()
    assert (seen.waits, seen.pageable) == ([], [])
    assert seen.calls > 1_000, "it ran on the device"


def _left(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor


def _unpinned(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)


def test_inputs_that_fsdp_itself_would_move_are_found(world: World) -> None:
    """It moves what it is given, and waits; a model alone would fail."""
    with _step(world, mock.patch("ptft.train.batches.send_tensor", _left)) as (step, seen):
        step()
    assert any("a copy to the device at parallel.py" in wait for wait in seen.waits)


def test_a_number_that_a_step_asks_for_is_found(world: World) -> None:
    def shown(scale: Tensor) -> Tensor:
        return torch.tensor(scale.item())

    with _step(world, mock.patch("ptft.objective._shown_scale", shown)) as (step, seen):
        step()
    assert any("_local_scalar_dense" in wait for wait in seen.waits)


def test_a_tensor_on_the_wrong_device_is_an_error(world: World) -> None:
    plant = mock.patch("ptft.objective.send", _left)
    error = pytest.raises(RuntimeError, match="same device, but found at least two")
    with _step(world, plant) as (step, _), error:
        step()


def test_a_copy_that_cannot_go_on_is_found(world: World) -> None:
    with _step(world, mock.patch("ptft.train.batches.send_tensor", _unpinned)) as (step, seen):
        step()
    assert seen.pageable


def test_a_run_of_the_device_is_exported_as_the_cpus(tmp_path: Path) -> None:
    adapt = {"kind": "lora", "rank": 2, "dropout": 0.0}
    run(tmp_path / "cpu", adapt=adapt)
    with second_device():
        run(tmp_path / "device", adapt=adapt, run__device="cuda", run__compile="off")
    assert rehearse_export(tmp_path) == 0.0
    here = property(lambda model: torch.device("cpu"))
    error = pytest.raises(RuntimeError, match="same device, but found at least two")
    with mock.patch.object(DualEncoder, "device", here), error:
        rehearse_export(tmp_path)
