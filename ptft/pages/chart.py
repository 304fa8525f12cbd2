"""Charts as descriptions: what is drawn, in its own units, whatever draws it.

A page draws them as SVG (``charts.html``), :mod:`ptft.report.charts` as a PNG. The SVG says
everything without a script.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ptft.pages.ticks import nice_ticks, tick_text

__all__ = ["Axis", "Bars", "Chart", "Dot", "HistogramBar", "Mark", "linear_axis"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 8, 34  # margins for what stands around the marks
_COLOURS = 10  # that base.css names s0, s1, ...

Point = tuple[float, float]
"""Across and upwards, in the units of the axes."""


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        low, high: its ends.
        ticks: values and how they are written.
        label: what is along it, for people.
        log: whether equal ratios are equally long; both ends are above 0 then.
    """

    low: float
    high: float
    ticks: list[tuple[float, str]]
    label: str = ""
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value stands: 0 at the low end, 1 at the high one."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low)


def linear_axis(
    low: float, high: float, label: str = "", *, most: int = 5, unit: str = "", whole: bool = False
) -> Axis:
    """Build an axis that ends at round numbers around a range.

    Args:
        most: ticks.
        unit: written behind each.
        whole: only whole numbers get a tick.
    """
    if low == high:
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if low else (0.0, 1.0)
    ticks = nice_ticks(low, high, most)
    named = [(tick, tick_text(tick) + unit) for tick in ticks if not whole or tick == int(tick)]
    return Axis(min(ticks[0], low), max(ticks[-1], high), named, label)


class Dot(NamedTuple):
    """A circle.

    Attributes:
        x, y: its middle.
        radius: in units of the drawing, about pixels.
        title: shown under the pointer.
    """

    x: float
    y: float
    radius: float = 2.5
    title: str = ""


class HistogramBar(NamedTuple):
    """An upright bar from 0.

    Attributes:
        left, right: its sides.
        y: its height.
        title: shown under the pointer.
    """

    left: float
    right: float
    y: float
    title: str = ""


@dataclass(frozen=True)
class Mark:
    """What belongs together in a chart and has one colour.

    Attributes:
        name: in the legend; none with "".
        value: beside the name.
        colour: 0 to 9, modulo; None is the colour of text.
        line: corners of a line.
        band: lowest and highest value around it: (across, low, high).
        dots, bars: see there.
        dashed: the line.
        hollow: the dots.
    """

    name: str = ""
    value: str = ""
    colour: int | None = 0
    line: Sequence[Point] = ()
    band: Sequence[tuple[float, float, float]] = ()
    dots: Sequence[Dot] = ()
    bars: Sequence[HistogramBar] = ()
    dashed: bool = False
    hollow: bool = False

    @property
    def style(self) -> str:
        """Names of classes that ``base.css`` colours."""
        colour = "ink" if self.colour is None else f"s{self.colour % _COLOURS}"
        return colour + " dash" * self.dashed + " hollow" * self.hollow


@dataclass(frozen=True)
class Chart:
    """A pair of axes and what is drawn in them.

    Attributes:
        title: of the chart.
        words: what it shows, for people who do not see it.
        x, y: its axes.
        marks: the first lie lowest.
        value: beside the title.
        note: at the other end of the title's line.
        data: JSON for the page's script; "" for none.
        width, height: of the drawing, in units that a phone shows as pixels.
    """

    title: str
    words: str
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    value: str = ""
    note: str = ""
    data: str = ""
    width: int = 360
    height: int = 210

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what the axes span, from the drawing's upper left."""
        return _LEFT, _TOP, self.width - _RIGHT, self.height - _BOTTOM

    def across(self, value: float) -> float:
        """Place of a value from the left."""
        left, _, right, _ = self.frame
        return left + self.x.share(value) * (right - left)

    def down(self, value: float) -> float:
        """Place of a value from the top."""
        _, top, _, bottom = self.frame
        return top + (1.0 - self.y.share(value)) * (bottom - top)

    def path(self, points: Sequence[Point]) -> str:
        """Corners as SVG's path data has them."""
        return "M" + "L".join(f"{self.across(x):.1f} {self.down(y):.1f}" for x, y in points)

    def around(self, band: Sequence[tuple[float, float, float]]) -> str:
        """The outline of a band."""
        upper = [(x, high) for x, _, high in band]
        return self.path(upper + [(x, low) for x, low, _ in reversed(band)]) + "Z"

    @property
    def legend(self) -> list[Mark]:
        """The marks that have a name, where there are several."""
        named = [mark for mark in self.marks if mark.name]
        return named if len(named) > 1 else []


@dataclass(frozen=True)
class Bars:
    """A table of a few kinds with a bar for each.

    Attributes:
        title, note: as a chart has them.
        rows: name, length and how that is written; the longest bar is as long as there is place.
    """

    title: str
    rows: Sequence[tuple[str, float, str]] = field(default_factory=list)
    note: str = ""

    @property
    def most(self) -> float:
        """The greatest length."""
        return max((length for _, length, _ in self.rows), default=0.0)
