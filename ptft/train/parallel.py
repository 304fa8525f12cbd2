"""A model among ranks: replicated (DDP) or sharded (FSDP2).

Both reduce gradients to their mean over the ranks during the backward pass. ``ddp`` keeps all
weights on every rank; ``fsdp`` keeps a part of each weight, gradient and optimiser state, and
gathers a block's weights while it runs (Zhao et al. 2023). The numbers are the same.

Initial weights are not broadcast: every rank makes the same ones from the seed, and a digest of
them is compared.
"""

import contextlib
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ptft.distributed import ALONE, World
from ptft.errors import RecipeError, TrainingError
from ptft.files.tensors import is_sharded
from ptft.model import DualEncoder, active_batch_norm, tower_blocks

__all__ = ["Parallel", "alone", "check_agreement", "share", "whole_tensor"]

_SAMPLED = 1024  # values of each weight that its digest reads


@dataclass(frozen=True)
class Parallel:
    """A model and the ranks that it learns on.

    Attributes:
        model: what is updated and saved; under FSDP2 its parameters are sharded (DTensor).
        wrapped: the same model behind what reduces its gradients.
        world: the ranks.
        twin: on the first rank under FSDP2, a model on the CPU that takes the whole weights.
    """

    model: DualEncoder
    wrapped: nn.Module
    world: World
    twin: DualEncoder | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """:meth:`DualEncoder.forward`, in training."""
        return self.wrapped(*args, **kwargs)

    def reduced(self, last: bool) -> contextlib.AbstractContextManager:
        """Around forward and backward of a micro batch: DDP reduces gradients with the last.

        FSDP2 reduces each time, since whole gradients are what it is there not to keep.
        """
        if last or not isinstance(self.wrapped, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.wrapped.no_sync()

    @contextlib.contextmanager
    def whole(self) -> Iterator[DualEncoder | None]:
        """The model with all its weights on the first rank, None on the others, who wait for it.

        What is done with it needs no other rank: evaluating, saving.
        """
        device = self.model.device
        if is_sharded([self.model.logit_scale]):
            _gather_into(self.twin, self.model)
        model = (self.twin or self.model) if self.world.first else None
        try:
            yield None if model is None else model.to(device)
        finally:
            if self.twin is not None:
                self.twin.to("cpu")
        self.world.barrier()


def alone(model: DualEncoder) -> Parallel:
    """A model in this process, whatever other ranks do."""
    return Parallel(model, model, ALONE)


def share(model: DualEncoder, world: World, how: Literal["ddp", "fsdp"] = "ddp") -> Parallel:
    """Put a model among the ranks of a world; alone, or where nothing learns, it stays as it is.

    Raises:
        RecipeError: a batch norm would take its statistics from a rank's share of the batch.
    """
    if world.tensors is None or not any(p.requires_grad for p in model.parameters()):
        return Parallel(model, model, world)
    norm = active_batch_norm(model)
    if norm is not None and world.size > 1:
        raise RecipeError(
            f"run.parallel: {how}: {norm} is a batch norm, which would see a rank's share of the "
            "batch; allowed over several ranks: adapt.freeze_norm: true, or adapt.lock of that "
            "tower"
        )
    if how == "fsdp":
        return _shard(model, world)
    device = model.device
    wrapped = DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        forward_sync_buffers=False,  # none moves in training
        gradient_as_bucket_view=True,
        init_sync=False,
    )
    return Parallel(model, wrapped, world)


def _shard(model: DualEncoder, world: World) -> Parallel:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # the specification holds the tokenizer, which nobody changes
    twin = copy.deepcopy(model, {id(model.spec): model.spec}).cpu() if world.first else None
    mesh = init_device_mesh(model.device.type, (world.size,))
    for tower in (model.image, model.text):
        for block in tower_blocks(tower):
            fully_shard(block, mesh=mesh)
    # what stands outside the blocks stays whole between forward and loss, which reads the scale
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    return Parallel(model, model, world, twin)


def check_agreement(model: DualEncoder, samples: int, world: World) -> None:
    """Check that all ranks start from the same weights and as many samples.

    Raises:
        TrainingError: they do not.
    """
    if world.size == 1:
        return
    starts = world.gather_objects(f"{samples:,} samples, weights {_digest(model)}")
    for rank, start in enumerate(starts):
        if start != starts[0]:
            raise TrainingError(
                f"rank {rank} starts from {start}; rank 0 from {starts[0]}: all ranks must see the "
                "same data and the same initial model"
            )


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, whole, on every rank; all ranks call it."""
    sharded: Any = tensor  # a DTensor, whose module takes a second to import
    return sharded.full_tensor() if is_sharded([tensor]) else tensor


def _digest(model: nn.Module) -> str:
    """Of evenly spread values of each weight, bit for bit."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().flatten()
        spread = torch.arange(0, len(flat), max(1, len(flat) // _SAMPLED), device=flat.device)
        sampled = flat[spread].cpu()
        digest.update(name.encode() + sampled.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _gather_into(twin: nn.Module | None, model: nn.Module) -> None:
    """Copy whole weights into ``twin``, one at a time; ranks without one take part."""
    places = None if twin is None else twin.state_dict(keep_vars=True)
    for name, tensor in model.state_dict().items():
        whole = whole_tensor(tensor.detach())
        if places is not None:
            places[name].copy_(whole)
