"""Drawings of the page: how many of what, how long, how large. SVG, and nothing moves."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ptft.pages.markup import Markup, element
from ptft.pages.ticks import nice_ticks, tick_text

__all__ = ["bar", "bars", "histogram", "scatter"]

_WIDTH, _HEIGHT = 360, 210  # of a drawing, in units that a phone shows as pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 8, 34  # margins for what stands around it
_BINS = 24  # of a histogram, about
_DOTS = 1500  # of a scatter, the most frequent places
_BAR = 100  # units that the longest bar has


def bar(count: int, most: int, style: str = "s0") -> Markup:
    """A bar for a cell of a table; its length is the share of ``most``."""
    length = _BAR * count / max(1, most)
    drawn = element("rect", width=f"{max(length, 1 if count else 0):.1f}", height=10, class_=style)
    return element(
        "svg",
        drawn,
        viewBox=f"0 0 {_BAR} 10",
        class_="bar",
        aria_hidden="true",
        preserveAspectRatio="none",
    )


def bars(title: str, counts: Mapping[str, int], note: str = "") -> Markup:
    """A table of a few kinds: name, bar, number."""
    most = max(counts.values(), default=1)
    rows = (
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", bar(count, most), class_="bars"),
            element("td", f"{count:,}"),
        )
        for name, count in counts.items()
    )
    table = element("table", element("tbody", *rows))
    return element("figure", _caption(title, note), table)


def histogram(title: str, values: Sequence[int], unit: str, note: str = "") -> Markup:
    """How many values lie in each of some equal spans.

    Args:
        values: at least one.
        unit: what stands below the axis.
    """
    low, high = min(values), max(values)
    step = 1
    while (high - low) // step >= _BINS:
        step = next(one for one in _steps() if one > step)
    first = low // step
    counts = Counter(value // step - first for value in values)
    last = high // step - first
    most = max(counts.values())
    ticks = [tick for tick in nice_ticks(0, most) if tick == int(tick)]
    top = max(ticks[-1], most)
    width = (_WIDTH - _LEFT - _RIGHT) / (last + 1)
    drawn = []
    for place, count in sorted(counts.items()):
        span = (place + first) * step
        words = str(span) if step == 1 else f"{span:,} to {span + step - 1:,}"
        height = max(1.0, count / top * (_HEIGHT - _TOP - _BOTTOM))
        drawn.append(
            element(
                "rect",
                element("title", f"{words} {unit}: {count:,}"),
                x=f"{_LEFT + place * width:.1f}",
                y=f"{_HEIGHT - _BOTTOM - height:.1f}",
                width=f"{max(1.0, width - 1):.1f}",
                height=f"{height:.1f}",
                class_="s0",
            )
        )
    every = -(-(last + 1) // 5)
    below = [
        _below(_LEFT + (place + (0.5 if step == 1 else 0)) * width, (place + first) * step)
        for place in range(0, last + 1, every)
    ]
    grid = _grid([(tick, tick / top) for tick in ticks], below, unit)
    return _figure(title, note, f"{title}: {len(values):,} from {low:,} to {high:,}", grid, *drawn)


def scatter(
    title: str, sizes: Sequence[tuple[int, int]], marked: tuple[int, int], note: str = ""
) -> Markup:
    """A dot for each width and height, larger where there are several of the same.

    Args:
        sizes: at least one.
        marked: width and height of a corner that is drawn as a dashed line.
    """
    counts = Counter(sizes).most_common(_DOTS)
    right = nice_ticks(0, max(max(width for width, _ in sizes), marked[0]), most=6)
    upper = nice_ticks(0, max(max(height for _, height in sizes), marked[1]))
    across = (_WIDTH - _LEFT - _RIGHT) / right[-1]
    down = (_HEIGHT - _TOP - _BOTTOM) / upper[-1]

    def place(width: float, height: float) -> tuple[str, str]:
        return f"{_LEFT + width * across:.1f}", f"{_HEIGHT - _BOTTOM - height * down:.1f}"

    x, y = place(*marked)
    corner = element("path", d=f"M{_LEFT} {y}H{x}V{_HEIGHT - _BOTTOM}", class_="corner")
    most = counts[0][1]
    dots = []
    for (width, height), count in counts:
        x, y = place(width, height)
        told = element("title", f"{width} x {height}: {count:,}")
        radius = 2 + 4 * (count / most) ** 0.5 if most > 1 else 2.5
        dots.append(element("circle", told, cx=x, cy=y, r=f"{radius:.1f}", class_="s0"))
    below = [_below(_LEFT + tick * across, tick) for tick in right]
    grid = _grid([(tick, tick / upper[-1]) for tick in upper], below, "width; height upwards")
    words = f"{title}: {len(sizes):,} pictures of {len(set(sizes)):,} sizes"
    return _figure(title, note, words, grid, corner, *dots)


def _steps() -> list[int]:
    """1, 2, 5, 10, 20, ... as far as a text can be long."""
    return [factor * 10**power for power in range(12) for factor in (1, 2, 5)]


def _below(x: float, value: float) -> Markup:
    return element("text", tick_text(value), x=f"{x:.1f}", y=_HEIGHT - _BOTTOM + 14, class_="below")


def _grid(ticks: Sequence[tuple[float, float]], below: Sequence[Markup], unit: str) -> Markup:
    """Lines, and what stands beside them: (value, share of the height)."""
    parts: list[Markup] = []
    for value, share in ticks:
        y = f"{_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM):.1f}"
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
        parts.append(
            element("text", tick_text(value), x=_LEFT - 6, y=y, dy="0.32em", class_="left")
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts += [*below, element("text", unit, x=middle, y=_HEIGHT - 4, class_="below")]
    return element("g", *parts, class_="grid", aria_hidden="true")


def _figure(title: str, note: str, words: str, *drawn: Markup) -> Markup:
    drawing = element(
        "svg", *drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=words
    )
    return element("figure", _caption(title, note), drawing)


def _caption(title: str, note: str) -> Markup:
    return element("figcaption", element("b", title), element("span", note, class_="at"))
