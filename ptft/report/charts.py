"""A chart of the page: lines over samples seen as SVG, with what a script needs to read it off.

The SVG says everything without the script; the script adds a cursor and the values under it.
"""

import json
import math
from collections.abc import Sequence

from ptft.pages.markup import Markup, element, join
from ptft.pages.ticks import nice_ticks, tick_text
from ptft.report.curves import Panel, Series

__all__ = ["chart", "figure_text"]

_WIDTH, _HEIGHT = 360, 210  # of the drawing, in units that a chart on a phone shows as pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 8, 34  # margins for what stands around the lines
_MOST = 240  # points of a line: about as many as its pixels; more are averaged
_DECADES = 1.7  # a loss that spans more (a factor of 50) is drawn on a logarithmic axis
_LOGARITHMIC = ("loss", "grad_norm")

Points = list[tuple[float, float, float, float]]
"""Samples seen, and mean, least and largest value of a bucket."""


def chart(panel: Panel, series: Series, *, end: int) -> Markup:
    """Lines of a panel, its legend, and the latest values.

    Args:
        end: samples seen at the right edge, the same for all charts of a page.
    """
    lines = {name: _buckets(series[name]) for name in panel.names}
    scale = _Scale(panel, lines)
    latest = max(points[-1][0] for points in lines.values())
    styles = _styles(panel.names)
    # both directions of a figure side by side in the legend
    names = sorted(panel.names, key=lambda name: styles[name].split()[0])
    drawn = [_line(lines[name], scale, end, styles[name]) for name in names]
    words = "; ".join(
        f"{_short(name)} from {figure_text(panel.shares, series[name][0][1])} to "
        f"{figure_text(panel.shares, series[name][-1][1])}"
        for name in names
    )
    drawing = element(
        "svg",
        _grid(scale, end, panel.shares),
        *drawn,
        element("g", class_="cursor"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        tabindex="0",
        aria_label=f"{panel.title} over samples seen: {words}",
    )
    caption = element(
        "figcaption",
        element("b", panel.title),
        element("output", figure_text(panel.shares, lines[panel.names[0]][-1][1]))
        if len(panel.names) == 1
        else None,
        element("span", f"at {latest:,.0f}", class_="at"),
    )
    legend = element("ul", *(_entry(name, lines[name], panel, styles[name]) for name in names))
    values = _values(panel, [lines[name] for name in names], scale, end)
    many = len(names) > 1
    return element("figure", caption, drawing, legend if many else None, data_chart=values)


def figure_text(share: bool, value: float) -> str:
    """A value in few characters: ``94.1 %``, ``0.0312``, ``12,034``."""
    if share:
        return f"{value:.1%}".replace("%", "\u202f%")
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:.2e}"


class _Scale:
    """The vertical axis: its range, whether it is logarithmic, and its ticks."""

    def __init__(self, panel: Panel, lines: dict[str, Points]) -> None:
        low = min(point[2] for points in lines.values() for point in points)
        high = max(point[3] for points in lines.values() for point in points)
        self.log = panel.names[0] in _LOGARITHMIC and low > 0 and math.log10(high / low) > _DECADES
        if panel.shares:
            self.ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
            self.low, self.high = 0.0, 1.0
            return
        if self.log:
            self.low, self.high = low, high
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            step = -(-len(decades) // 5)
            powers = [10.0**power for power in decades][::step]
            self.ticks = [tick for tick in powers if low <= tick <= high]
            if len(self.ticks) < 2:
                self.ticks = [low, high]
            return
        if low >= 0 and low < 0.5 * high:
            low = 0.0  # near enough for the whole height to be worth seeing
        if low == high:
            low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if low else (0.0, 1.0)
        self.ticks = nice_ticks(low, high)
        self.low, self.high = self.ticks[0], self.ticks[-1]

    def y(self, value: float) -> float:
        """Place of a value in the drawing, from the top."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        share = (value - low) / (high - low)
        return _TOP + (1.0 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _x(seen: float, end: int) -> float:
    return _LEFT + seen / max(end, 1) * (_WIDTH - _LEFT - _RIGHT)


def _buckets(points: Sequence[tuple[int, float]]) -> Points:
    """At most ``_MOST`` points: as many in a row as it takes are averaged, their range kept."""
    size = -(-len(points) // _MOST)
    buckets: Points = []
    for start in range(0, len(points), size):
        part = [value for _, value in points[start : start + size]]
        seen = points[min(start + size, len(points)) - 1][0]
        buckets.append((seen, sum(part) / len(part), min(part), max(part)))
    return buckets


def _styles(names: Sequence[str]) -> dict[str, str]:
    """Classes that the page colours: a colour a figure, text-to-image dashed in the colour of its
    image-to-text sister."""
    bases = list(
        dict.fromkeys(_short(name).removeprefix("t2i_").removeprefix("i2t_") for name in names)
    )
    styles = {}
    for name in names:
        short = _short(name)
        base = short.removeprefix("t2i_").removeprefix("i2t_")
        styles[name] = f"s{bases.index(base) % 8}" + (" dash" if short.startswith("t2i_") else "")
    return styles


def _line(points: Points, scale: _Scale, end: int, style: str) -> Markup:
    places = [(_x(seen, end), scale.y(mean)) for seen, mean, _, _ in points]
    band = None
    if any(low != high for _, _, low, high in points):
        upper = [(_x(seen, end), scale.y(high)) for seen, _, _, high in points]
        lower = [(_x(seen, end), scale.y(low)) for seen, _, low, _ in reversed(points)]
        band = element("path", d=_path(upper + lower) + "Z", class_="band")
    marks = (
        [element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="2.5") for x, y in places]
        if len(places) < 4
        else []
    )
    line = element("path", d=_path(places), class_="line")
    return element("g", band, line, *marks, class_=style, data_line=True)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _grid(scale: _Scale, end: int, shares: bool) -> Markup:
    parts: list[Markup] = []
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for tick in scale.ticks:
        y = f"{scale.y(tick):.1f}"
        text = f"{tick:.0%}" if shares else tick_text(tick)
        parts.append(element("line", x1=_LEFT, x2=right, y1=y, y2=y))
        parts.append(element("text", text, x=_LEFT - 6, y=y, dy="0.32em", class_="left"))
    for tick in nice_ticks(0.0, max(end, 1), most=6):
        if tick > end:
            continue
        x = f"{_x(tick, end):.1f}"
        parts.append(element("text", tick_text(tick), x=x, y=bottom + 14, class_="below"))
    middle = (_LEFT + right) / 2
    title = "samples seen" + (", logarithmic scale" if scale.log else "")
    parts.append(element("text", title, x=middle, y=_HEIGHT - 4, class_="below"))
    return element("g", *parts, class_="grid", aria_hidden="true")


def _entry(name: str, points: Points, panel: Panel, style: str) -> Markup:
    swatch = element(
        "svg",
        element("path", d="M0 6L22 6", class_="line"),
        viewBox="0 0 22 12",
        class_=style,
        aria_hidden="true",
    )
    value = element("output", figure_text(panel.shares, points[-1][1]))
    return element("li", swatch, join((_label(name), " ")), value)


def _values(panel: Panel, lines: list[Points], scale: _Scale, end: int) -> str:
    """What the script reads: the drawing's frame and scale, and each line's points."""
    return json.dumps(
        {
            "frame": [_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM],
            "end": max(end, 1),
            "y": [scale.low, scale.high, scale.log],
            "shares": panel.shares,
            "lines": [
                [[seen, float(f"{mean:.5g}")] for seen, mean, _, _ in points] for points in lines
            ],
        },
        separators=(",", ":"),
    )


def _label(name: str) -> str:
    """A name for the legend, where two stand side by side: ``i2t R@10``."""
    return _short(name).replace("recall@", "R@").replace("_", " ")


def _short(name: str) -> str:
    return name.rpartition("/")[2]
