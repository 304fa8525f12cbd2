"""The processes that train together, as torchrun starts them, and what they tell each other.

A :class:`World` is made once, at the start of a run, from torchrun's environment; whatever needs a
rank or a collective is handed it. Alone, every collective is the identity, so nothing above has a
second path for one process.

Two process groups: tensors go through NCCL (CUDA) or gloo (CPU); small agreements on the host (a
stop signal, a folder's name) and waiting for rank 0, which may evaluate for an hour, go through a
gloo group of their own with a long timeout; a machine that is gone ends it sooner
(:mod:`ptft.lost`).

Gradients: a gather whose backward only keeps the caller's own part gives gradients that are W times
too small or point elsewhere; :meth:`World.gather` sums the parts of all ranks (reduce-scatter).
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from ptft.errors import TrainingError
from ptft.lost import met, probed

__all__ = ["ALONE", "World", "join_world", "meeting_place"]

K = TypeVar("K")
T = TypeVar("T")
_PATIENCE = timedelta(hours=12)  # ranks wait this long for the first to evaluate or save


@dataclass(frozen=True)
class World:
    """One process among ``size``.

    Attributes:
        rank: of this process among all; rank 0 alone writes.
        size: processes in all.
        local_rank: of this process on its machine.
        restarts: how often torchrun has started the processes again.
        tensors, host: the process groups; None alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0
    tensors: dist.ProcessGroup | None = None
    host: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes, reports and evaluates."""
        return self.rank == 0

    def gather(self, tensor: Tensor) -> Tensor:
        """(b, ...) of every rank, of one shape -> (W * b, ...) in the order of ranks.

        Differentiable: the gradient of a rank's part is the sum of what all ranks have for it.
        """
        return tensor if self.tensors is None else _Gather.apply(tensor, self)

    def gather_ids(self, ids: Tensor) -> Tensor:
        """As :meth:`gather`, of integers; those of the host on their way through the host alone,
        so that no rank waits for a GPU."""
        group = self.tensors if ids.is_cuda else self.host
        if group is None:
            return ids
        every = ids.new_empty((self.size * len(ids), *ids.shape[1:]))
        dist.all_gather_single(every, ids.contiguous(), group=group)
        return every

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks, in place; returned for convenience. Not differentiable."""
        if self.tensors is not None:
            dist.all_reduce(tensor, dist.ReduceOp.SUM, group=self.tensors)
        return tensor

    def max_(self, tensor: Tensor) -> Tensor:
        """Largest over the ranks, in place; returned for convenience. Not differentiable."""
        if self.tensors is not None:
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.tensors)
        return tensor

    def mean(self, figures: Mapping[K, float]) -> dict[K, float]:
        """Mean of each figure over the ranks; every rank gets the same. One small message."""
        if self.host is None:
            return dict(figures)
        values = torch.tensor(list(figures.values()), dtype=torch.float64)
        dist.all_reduce(values, dist.ReduceOp.SUM, group=self.host)
        return dict(zip(figures, (values / self.size).tolist(), strict=True))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.host is not None:
            dist.all_reduce(torch.zeros(1), group=self.host)

    def gather_objects(self, value: T) -> list[T]:
        """A value of every rank, in the order of ranks; it is pickled on its way.

        The ranks of one run trust each other, as the processes of torchrun that start them do.
        """
        if self.host is None:
            return [value]
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, value, group=self.host)
        return every

    def broadcast(self, value: T | None) -> T:
        """What the first rank gave, on every rank; see :meth:`gather_objects`."""
        given = [value]
        if self.host is not None:
            dist.broadcast_object_list(given, src=0, group=self.host)
        [first] = given
        return cast(T, first)

    def hand_out(self, tensor: Tensor | None, device: torch.device) -> Tensor:
        """The first rank's tensor on every rank; the others give None.

        Args:
            device: where this rank has it.
        """
        if self.tensors is None:
            assert tensor is not None, "a process alone is the first"
            return tensor
        shape, dtype = self.broadcast(None if tensor is None else (tensor.shape, tensor.dtype))
        if tensor is None:
            tensor = torch.empty(shape, dtype=dtype, device=device)
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0, group=self.tensors)
        return tensor

    def on_first(self, work: Callable[[], T]) -> T:
        """What ``work`` gives on the first rank, which alone does it, on every rank.

        Raises:
            TrainingError: on the other ranks, if it fails on the first, which raises as it did.
        """
        if self.host is None:
            return work()
        if self.first:
            try:
                result = work()
            except Exception as error:
                self.broadcast(_Failed(str(error)))
                raise
            return self.broadcast(result)
        answer: T | _Failed = self.broadcast(None)
        if isinstance(answer, _Failed):
            raise TrainingError(f"rank 0 stopped: {answer.message}")
        return answer

    def together(self, work: Callable[[], T], errors: tuple[type[Exception], ...]) -> list[T]:
        """What ``work`` gives on each rank, in the order of ranks; every rank does it.

        Raises:
            TrainingError: on every rank, if it failed with one of ``errors`` on any, so that none
                waits for it.
        """
        outcome: T | _Failed
        try:
            outcome = work()
        except errors as error:
            outcome = _Failed(str(error))
        results: list[T] = []
        for one in self.gather_objects(outcome):
            if isinstance(one, _Failed):
                raise TrainingError(one.message)
            results.append(one)
        return results


@dataclass(frozen=True)
class _Failed:
    """What ranks are sent in place of a result."""

    message: str


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World) -> Tensor:
        ctx.world = world
        every = tensor.new_empty((world.size * len(tensor), *tensor.shape[1:]))
        dist.all_gather_single(every, tensor.contiguous(), group=world.tensors)
        return every

    @staticmethod
    def backward(ctx: Any, *by_every: Tensor) -> tuple[Tensor, None]:
        world, gradient = ctx.world, by_every[0].contiguous()
        size = len(gradient) // world.size
        own = gradient.new_empty((size, *gradient.shape[1:]))
        dist.reduce_scatter_single(own, gradient, group=world.tensors)
        return own, None


ALONE = World()


@contextlib.contextmanager
def join_world(
    device: str, *, lost_after: float, environment: Mapping[str, str] = os.environ
) -> Iterator[World]:
    """The world that torchrun describes in the environment, left again at the end.

    Args:
        device: ``cuda`` or ``cpu``: NCCL, with a GPU each by local rank, or gloo.
        lost_after: seconds after which a machine that answers nothing is gone.
        environment: torchrun's variables; without them this process is alone.

    Raises:
        TrainingError: the variables are incomplete, or there are fewer GPUs than ranks here; or the
            ranks did not meet.
    """
    if "WORLD_SIZE" not in environment or "RANK" not in environment:
        yield ALONE
        return
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local = int(environment["LOCAL_RANK"])
        restarts = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
    except (KeyError, ValueError) as error:
        raise TrainingError(f"the environment of torchrun is incomplete: {error}") from None
    place = None
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"torchrun --nproc-per-node: local rank {local} has no GPU of its own; "
                f"allowed: at most {torch.cuda.device_count()} here, or run.device: cpu"
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    try:
        with met(rank, size), probed(lost_after):
            dist.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                store=meeting_place(environment, rank, size, restarts),
                rank=rank,
                world_size=size,
                device_id=place,
            )
            host = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield World(rank, size, local, restarts, dist.group.WORLD, host)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def meeting_place(environment: Mapping[str, str], rank: int, size: int, restarts: int) -> Any:
    """torchrun's store, in which ranks find each other's addresses.

    On one machine torchrun keeps the store when it starts the ranks again, and a rank that is early
    finds the address of one that is dead: it waits, fails, and a restart is lost. There, each start
    has names of its own. Over several machines the counts of restarts differ between them.
    """
    store, _, _ = next(rendezvous("env://", rank, size))
    alone = int(environment.get("GROUP_WORLD_SIZE", 1)) == 1
    prefix = f"start-{restarts}" if alone else "start"
    return dist.PrefixStore(prefix, store)  # type: ignore[attr-defined] # it has no stub
