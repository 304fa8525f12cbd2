"""A run's figures over samples seen, as charts: for its page, and as ``curves.png``."""

import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, write_atomic
from ptft.pages.chart import Axis, Chart, Dot, Mark, linear_axis
from ptft.pages.ticks import nice_ticks, tick_text
from ptft.report.curves import Panel, Series, group_panels, read_series

__all__ = ["figure_text", "plot_curves", "run_chart"]

_MOST = 240  # points of a line: about as many as its pixels; more are averaged
_DECADES = 1.7  # a loss that spans more (a factor of 50) is drawn on a logarithmic axis
_LOGARITHMIC = ("loss", "grad_norm")
_SHARES = [(0.0, "0%"), (0.25, "25%"), (0.5, "50%"), (0.75, "75%"), (1.0, "100%")]

Buckets = list[tuple[float, float, float, float]]
"""Samples seen, and mean, least and largest value of a bucket."""


def run_chart(panel: Panel, series: Series, *, end: int) -> Chart:
    """Describe the chart of a panel: a line for each figure, with the latest values.

    Args:
        end: samples seen at the right edge, the same for all charts of a run.
    """
    buckets = {name: _buckets(series[name]) for name in panel.names}
    colours = _colours(panel.names)
    # both directions of a figure side by side in the legend
    names = sorted(panel.names, key=colours.__getitem__)
    y = _vertical(panel, list(buckets.values()))
    end = max(end, 1)
    ticks = [(tick, tick_text(tick)) for tick in nice_ticks(0.0, end, most=6) if tick <= end]
    x = Axis(0.0, end, ticks, "samples seen" + ", logarithmic scale" * y.log)
    words = "; ".join(
        f"{_short(name)} from {figure_text(panel.shares, series[name][0][1])} to "
        f"{figure_text(panel.shares, series[name][-1][1])}"
        for name in names
    )
    latest = [figure_text(panel.shares, buckets[name][-1][1]) for name in names]
    marks = [
        Mark(
            name=_short(name).replace("recall@", "R@").replace("_", " "),
            value=value,
            colour=colours[name],
            line=(line := [(seen, mean) for seen, mean, _, _ in buckets[name]]),
            band=_band(buckets[name]),
            dots=[Dot(*point) for point in line] if len(line) < 4 else (),
            dashed=_short(name).startswith("t2i_"),
        )
        for name, value in zip(names, latest, strict=True)
    ]
    chart = Chart(
        panel.title,
        f"{panel.title} over samples seen: {words}",
        x,
        y,
        marks,
        value=latest[0] if len(names) == 1 else "",
        note=f"at {max(points[-1][0] for points in buckets.values()):,.0f}",
    )
    return replace(chart, data=_data(chart, panel.shares))


def plot_curves(folder: Path) -> Path | None:
    """Draw ``curves.png`` from ``metrics.jsonl``; None where nothing was logged yet."""
    series = read_series(folder)
    panels = group_panels(series)
    if not panels:
        return None
    end = max(points[-1][0] for points in series.values())
    path = folder / RunFiles.CURVES
    write_atomic(path, _png([run_chart(panel, series, end=end) for panel in panels]))
    return path


def figure_text(share: bool, value: float) -> str:
    """Write a value in few characters: ``94.1 %``, ``0.0312``, ``12,034``."""
    if share:
        return f"{value:.1%}".replace("%", "\u202f%")
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:.2e}"


def _vertical(panel: Panel, lines: Sequence[Buckets]) -> Axis:
    """An axis of shares, of decades, or of round numbers around all values."""
    if panel.shares:
        return Axis(0.0, 1.0, _SHARES)
    low = min(point[2] for points in lines for point in points)
    high = max(point[3] for points in lines for point in points)
    if panel.names[0] in _LOGARITHMIC and low > 0 and math.log10(high / low) > _DECADES:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        powers = [10.0**power for power in decades][:: -(-len(decades) // 5)]
        ticks = [tick for tick in powers if low <= tick <= high]
        ticks = ticks if len(ticks) > 1 else [low, high]
        return Axis(low, high, [(tick, tick_text(tick)) for tick in ticks], log=True)
    if low >= 0 and low < 0.5 * high:
        low = 0.0  # near enough for the whole height to be worth seeing
    return linear_axis(low, high)


def _buckets(points: Sequence[tuple[int, float]]) -> Buckets:
    """At most ``_MOST`` points: as many in a row as it takes are averaged, their range kept."""
    size = -(-len(points) // _MOST)
    buckets: Buckets = []
    for start in range(0, len(points), size):
        part = [value for _, value in points[start : start + size]]
        seen = points[min(start + size, len(points)) - 1][0]
        buckets.append((seen, sum(part) / len(part), min(part), max(part)))
    return buckets


def _band(buckets: Buckets) -> list[tuple[float, float, float]]:
    """Give the range of averaged points; nothing where each is one value."""
    if all(low == high for _, _, low, high in buckets):
        return []
    return [(seen, low, high) for seen, _, low, high in buckets]


def _colours(names: Sequence[str]) -> dict[str, int]:
    """A colour for each figure, the same for text to image as for image to text."""
    bases = [_short(name).removeprefix("t2i_").removeprefix("i2t_") for name in names]
    order = list(dict.fromkeys(bases))
    return {name: order.index(base) for name, base in zip(names, bases, strict=True)}


def _data(chart: Chart, shares: bool) -> str:
    """What the page's script reads: the frame, the scales, and each line's points."""
    lines = [[[seen, float(f"{mean:.5g}")] for seen, mean in mark.line] for mark in chart.marks]
    values = {
        "frame": chart.frame,
        "end": chart.x.high,
        "y": [chart.y.low, chart.y.high, chart.y.log],
        "shares": shares,
        "lines": lines,
    }
    return json.dumps(values, separators=(",", ":"))


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _png(charts: Sequence[Chart]) -> bytes:
    """Charts side by side, at most three in a row, as they stand on the page in daylight."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(3, len(charts))
    rows = -(-len(charts) // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)  # inches
    figure = Figure(figsize=(5.0 * columns, 3.2 * rows), layout=layout)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    css = files("ptft.pages").joinpath("base.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): (#\w{6})", css.partition("@media")[0]))
    for axes_of, chart in zip(axes, charts, strict=False):
        _draw(axes_of, chart, colours)
    for unused in axes[len(charts) :]:
        unused.set_axis_off()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    return picture.getvalue()


def _draw(axes: Any, chart: Chart, colours: dict[str, str]) -> None:
    for mark in chart.marks:
        colour = colours[mark.style.split()[0]]
        label = f"{mark.name}  {mark.value}"
        if mark.band:
            axes.fill_between(*zip(*mark.band, strict=True), color=colour, alpha=0.18, linewidth=0)
        style = {"linestyle": "--" if mark.dashed else "-", "marker": "o" if mark.dots else None}
        x, y = zip(*mark.line, strict=True)
        axes.plot(x, y, color=colour, label=label, linewidth=1.4, markersize=3, **style)
    axes.set_title(f"{chart.title}  {chart.value}", fontsize=10, loc="left", fontweight="bold")
    axes.set_xlabel(chart.x.label, fontsize=8)
    for name, axis in (("x", chart.x), ("y", chart.y)):
        axes.set(**{f"{name}scale": "log" if axis.log else "linear"})
        axes.set(**{f"{name}lim": (axis.low, axis.high)})
        places, texts = zip(*axis.ticks, strict=True)
        axes.set(**{f"{name}ticks": places, f"{name}ticklabels": texts})
    axes.minorticks_off()
    axes.tick_params(labelsize=8, length=0, labelcolor=colours["faint"])
    axes.grid(axis="y", color=colours["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    if chart.legend:
        axes.legend(fontsize=7, ncols=2, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.15))
