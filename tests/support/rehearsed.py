"""What a run on the second device showed."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ptft.data import Batch
from ptft.train import loop
from tests.support.second_device import Seen

__all__ = ["LOG_EVERY", "Marked", "Rehearsed"]

LOG_EVERY = 3
_MATCHING = " match_boxes"  # where a wait ends that SciPy's assignment asks for


@dataclass(frozen=True)
class Rehearsed:
    """What a run on the second device showed.

    Attributes:
        difference: of its weights from those of the run on the CPU, at most.
        waits: of each step but the last, which saves: what the host waited for; of several ranks,
            by the rank.
        pageable: copies that were to go on and could not, of the whole run.
        calls: operations on the device.
    """

    difference: float
    waits: list[list[list[str]]]
    pageable: list[str]
    calls: int

    @property
    def waited(self) -> int:
        """All of them."""
        return sum(len(waits) for steps in self.waits for waits in steps)

    @property
    def unasked(self) -> list[str]:
        """Waits of steps that are not logged, and those beyond the first of one that is; but for a
        detector's, which gives boxes to places on the host."""
        found = []
        for steps in self.waits:
            for number, waits in enumerate(steps, 1):
                asked = [one for one in waits if not one.endswith(_MATCHING)]
                found += asked[number % LOG_EVERY == 0 :]
        return found


class Marked:
    """The batches of a run, and how many waits there were before each."""

    def __init__(self, seen: Seen) -> None:
        self.seen, self.plain, self.places = seen, loop.batches, list[int]()

    def batches(self, *arguments: Any, **options: Any) -> Iterator[Batch]:
        for batch in self.plain(*arguments, **options):
            self.places.append(len(self.seen.waits))
            yield batch

    def waits(self) -> list[list[str]]:
        """Of each step but the last."""
        return [self.seen.waits[a:b] for a, b in pairwise(self.places)]
