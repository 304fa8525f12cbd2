"""Bounds as the command line has them: ``top1=0.8``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ptft.errors import UsageError, suggest

__all__ = ["FIGURES", "KS", "WATCHED", "BoundKind", "GateBound", "read_bounds"]

KS = (1, 5, 10)
"""Of recall."""

FIGURES = (
    "top1",
    "mean_per_class",
    *(f"{way}_recall@{k}" for way in ("i2t", "t2i") for k in KS),
    "agreement",
)
"""Of a model on a probe set, shares of 1; more is better. ``agreement``: with the live release."""

WATCHED = ("errors", "slower", "drift", "disagreement")
"""Of two services while they run; less is better. ``disagreement``: on requests of the live release
that are mirrored to the other (``PTFT_MIRROR_URL``)."""

BoundKind = Literal["at-least", "drop", "at-most"]
_ALLOWED: dict[BoundKind, tuple[str, ...]] = {
    "at-least": FIGURES,
    "drop": FIGURES[:-1],
    "at-most": WATCHED,
}


@dataclass(frozen=True)
class GateBound:
    """What a figure has to be.

    Attributes:
        kind: ``at-least``: a floor; ``drop``: at most so much below the live release; ``at-most``.
        name: of the figure.
        value: a share of 1; of ``slower`` a ratio, of ``drift`` a count.
    """

    kind: BoundKind
    name: str
    value: float


def read_bounds(kind: BoundKind, given: Sequence[str]) -> list[GateBound]:
    """``NAME=VALUE`` each.

    Raises:
        UsageError: another form, a figure that there is not, or no such value.
    """
    return [_read(kind, text) for text in given]


def _read(kind: BoundKind, text: str) -> GateBound:
    name, equals, value = (part.strip() for part in text.partition("="))
    option = f"--{kind} {text}"
    if not equals:
        raise UsageError(f"{option}: allowed: FIGURE=VALUE, such as {_ALLOWED[kind][0]}=0.8")
    if name not in _ALLOWED[kind]:
        raise UsageError(f"{option}: no figure {name!r}; {suggest(name, _ALLOWED[kind])}")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    most = math.inf if name in ("slower", "drift") else 1.0
    if not 0 <= number <= most or math.isinf(number):
        shown = "0 or more" if most > 1 else "0 to 1"
        raise UsageError(f"{option}: {value!r}; allowed: {shown}")
    return GateBound(kind, name, number)
