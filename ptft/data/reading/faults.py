"""What a run skipped: counted by fault, named, and held to a share.

The rule is made so that a single bad sample cannot stop a small run, and a source that has gone bad
cannot go unnoticed in a large one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ptft.data.reading.batch import Skip
from ptft.errors import FAULTS, DataError

__all__ = ["Tally", "tolerated"]

_EACH_SAID = 10  # skipped samples of which examples are said; then ever more rarely
_JUDGED_AFTER = 1000  # samples; a share of fewer says little
_ENOUGH = 10  # different bad samples, in a set that allows more than so many
_NAMED = 20  # different bad samples that are remembered
_TOLD = 3  # ... and named in the message


def tolerated(share: float, size: int) -> float:
    """How many different bad samples a set of ``size`` may have: ``share`` of it, and always one
    unless ``share`` is 0."""
    return max(1.0, share * size) if share else 0.0


@dataclass
class Tally:
    """Counts of skipped samples.

    Attributes:
        counts: by fault; a sample that is met twice counts twice.
        first: name -> fault and reason of the first different ones, at most 20.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Tally":
        """What :meth:`state` gave; an empty one from an empty mapping."""
        return cls(dict(state.get("counts", {})), dict(state.get("first", {})))

    def state(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return {"counts": dict(self.counts), "first": dict(self.first)}

    @property
    def total(self) -> int:
        """All that was skipped."""
        return sum(self.counts.values())

    def add(self, skipped: Iterable[Skip]) -> None:
        """Count what a batch skipped."""
        for skip in skipped:
            self.counts[skip.fault] = self.counts.get(skip.fault, 0) + 1
            if len(self.first) < _NAMED:
                self.first.setdefault(skip.name, f"{skip.fault}: {skip.reason}")

    def merge(self, other: "Tally") -> None:
        """Add the counts of another process."""
        for fault, count in other.counts.items():
            self.counts[fault] = self.counts.get(fault, 0) + count
        for name, reason in other.first.items():
            if len(self.first) < _NAMED:
                self.first.setdefault(name, reason)

    def exceeds(self, share: float, *, seen: int, size: int) -> bool:
        """Whether more was skipped than ``share`` allows.

        True where all of these hold: 1,000 samples were seen, or ``size`` if that is less; more
        than ``share`` of those seen were skipped; and there were more different bad samples than
        ``share`` of the set, or than 10 where that is more, or than 1 where it is less. With a
        share of 0 the first one is too many.

        Args:
            share: ``data.max_skipped``.
            seen: samples so far.
            size: of the set.
        """
        if share == 0:
            return self.total > 0
        return (
            seen >= min(_JUDGED_AFTER, size)
            and self.total > share * seen
            and len(self.first) > min(_ENOUGH, tolerated(share, size))
        )

    def check(self, share: float, *, seen: int, size: int) -> None:
        """Raise DataError with the counts and the first names where :meth:`exceeds` is true."""
        if not self.exceeds(share, seen=seen, size=size):
            return
        names = "; ".join(f"{name} ({why})" for name, why in list(self.first.items())[:_TOLD])
        raise DataError(
            f"{self.summary(seen)}; allowed: {share:.3%} of those seen (data.max_skipped: "
            f"{share:g}). First: {names}"
        )

    def line(self, newest: Skip, *, before: int, seen: int) -> str | None:
        """What is said of samples that were just skipped: of each step that skips one of the first
        10 an example, then, whenever there are twice as many, their rates with one.

        Args:
            newest: one of them.
            before: skipped samples without them.
            seen: samples so far.
        """
        example = f"{newest.name}: {newest.reason}"
        if before < _EACH_SAID:
            return f"skipped {example} ({self.total} so far)"
        if before.bit_length() == self.total.bit_length():
            return None
        return f"{self.summary(seen)} ({self.total / seen:.2%}), such as {example}"

    def summary(self, seen: int) -> str:
        """Such as ``skipped 12 of 10,000 samples: 7 corrupt, 5 empty``."""
        parts = [f"{self.counts[fault]:,} {fault}" for fault in FAULTS if self.counts.get(fault)]
        kinds = f": {', '.join(parts)}" if parts else ""
        return f"skipped {self.total:,} of {seen:,} samples{kinds}"
