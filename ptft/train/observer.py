"""What whoever started a run may see of its model on the way, and give it up."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptft.model import DualEncoder

__all__ = ["Observer"]


@dataclass(frozen=True)
class Observer:
    """Shows the model, as it would be saved then, at shares of a run's steps; for one process.

    Attributes:
        shares: between 0 and 1, exclusive; each is due after the first step that reaches it. The
            model is not shown before the first step or after the last.
        observe: gets the model and the number of the share, and may raise to end the run; what it
            raises comes out of ``train``. It leaves the model as it was, but for its mode.
    """

    shares: Sequence[float]
    observe: Callable[[DualEncoder, int], None]

    def number(self, step: int, steps: int) -> int | None:
        """Of the share that is due after ``step`` of ``steps``, the last one if there are more."""
        due = [n for n, share in enumerate(self.shares) if math.ceil(share * steps) == step]
        return due[-1] if due and step < steps else None
