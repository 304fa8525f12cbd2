"""The figures of steps, which stay on the device until they are asked for.

A number of a GPU is read once all that the GPU was asked for is done; it then stands idle until the
host has asked for more. So the figures of several steps are read at once, as often as the log needs
them (``run.log_every``), and before anything is saved, validated or shown. A CPU has done all that
it was asked for, and its figures are read at every step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ptft.data import Batch
from ptft.distributed import World

__all__ = ["MOST_UNREAD", "Readings", "StepFigures"]

MOST_UNREAD = 100  # steps: the names and captions of their batches are kept for the guard


@dataclass(frozen=True)
class StepFigures:
    """What a step came to.

    Attributes:
        step: its number, from 1.
        first: position in the run of this rank's first sample.
        batch: its samples, without their pictures.
        figures: means over the ranks.
    """

    step: int
    first: int
    batch: Batch
    figures: dict[str, float]


class Readings:
    """Takes the figures of each step, and reads those of several at once.

    Args:
        world: the ranks, which take the same steps and read together.

    Attributes:
        newest: figures of the newest step that was read; empty before the first.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.newest: dict[str, float] = {}
        self._unread: list[tuple[int, int, Batch, dict[str, Tensor]]] = []

    @property
    def full(self) -> bool:
        """Whether no more than one step can be taken."""
        return len(self._unread) >= MOST_UNREAD

    def take(self, step: int, first: int, batch: Batch, figures: Mapping[str, Tensor]) -> None:
        """Keep the figures of a step, 0-d each on one device, and what its samples are called."""
        kept = replace(batch, images=None, boxes=None)
        self._unread.append((step, first, kept, dict(figures)))

    def read(self) -> list[StepFigures]:
        """All steps that were taken and not read, in order; the one time that the host waits."""
        taken, self._unread = self._unread, []
        flat = [figure.reshape(()).double() for *_, figures in taken for figure in figures.values()]
        keys = [(step, name) for step, *_, figures in taken for name in figures]
        values = dict(zip(keys, torch.stack(flat).tolist(), strict=True)) if flat else {}
        means = self._world.mean(values)
        found = [
            StepFigures(step, first, batch, {name: means[step, name] for name in figures})
            for step, first, batch, figures in taken
        ]
        self.newest = found[-1].figures if found else self.newest
        return found
