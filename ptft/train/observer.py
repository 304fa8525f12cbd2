"""Looks at a run by whoever started it, who may give it up."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptft.model import DualEncoder

__all__ = ["Watch"]


@dataclass(frozen=True)
class Watch:
    """Shows the model, as it would be saved then, at shares of a run's steps; for one process.

    Attributes:
        shares: between 0 and 1, exclusive; the look is after the first step that reaches one. There
            is none before the first step or after the last.
        look: gets the model and the number of the share, and may raise to end the run; what it
            raises comes out of ``train``. It leaves the model as it was, but for its mode.
    """

    shares: Sequence[float]
    look: Callable[[DualEncoder, int], None]

    def number(self, step: int, steps: int) -> int | None:
        """Of the look that belongs after ``step``: the last share that is reached by it."""
        due = [n for n, share in enumerate(self.shares) if math.ceil(share * steps) == step]
        return due[-1] if due and step < steps else None
