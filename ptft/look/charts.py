"""Charts of a split: how long its captions are, and how large its pictures."""

from collections import Counter
from collections.abc import Sequence

from ptft.pages.chart import Axis, Chart, Dot, HistogramBar, Mark, linear_axis
from ptft.pages.ticks import tick_text

__all__ = ["histogram", "scatter"]

_BINS = 24  # of a histogram, about
_DOTS = 1500  # of a scatter, the most frequent places


def histogram(title: str, values: Sequence[int], unit: str, note: str = "") -> Chart:
    """Draw how many values lie in each of some equal spans.

    Args:
        values: at least one.
        unit: what stands below the axis.
    """
    low, high = min(values), max(values)
    step = 1
    while (high - low) // step >= _BINS:
        step = next(one for one in _steps() if one > step)
    first, last = low // step, high // step
    counts = sorted(Counter(value // step for value in values).items())
    bars = [
        HistogramBar(place, place + 1, count, f"{_span(place * step, step)} {unit}: {count:,}")
        for place, count in counts
    ]
    middle = 0.5 if step == 1 else 0
    places = range(first, last + 1, -(-(last + 1 - first) // 5))
    x = Axis(first, last + 1, [(place + middle, tick_text(place * step)) for place in places], unit)
    y = linear_axis(0, max(count for _, count in counts), whole=True)
    words = f"{title}: {len(values):,} from {low:,} to {high:,}"
    return Chart(title, words, x, y, [Mark(bars=bars)], note=note)


def scatter(
    title: str, sizes: Sequence[tuple[int, int]], marked: tuple[int, int], note: str = ""
) -> Chart:
    """Draw a dot for each width and height, larger where several are the same.

    Args:
        sizes: at least one.
        marked: width and height of a corner that is drawn as a dashed line.
    """
    counts = Counter(sizes).most_common(_DOTS)
    most = counts[0][1]
    dots = [
        Dot(
            width,
            height,
            2 + 4 * (count / most) ** 0.5 if most > 1 else 2.5,
            f"{width} x {height}: {count:,}",
        )
        for (width, height), count in counts
    ]
    across, down = marked
    x = linear_axis(0, max(across, *(width for width, _ in sizes)), "width; height upwards", most=6)
    y = linear_axis(0, max(down, *(height for _, height in sizes)))
    corner = Mark(colour=1, line=[(0, down), (across, down), (across, 0)], dashed=True)
    words = f"{title}: {len(sizes):,} pictures of {len(set(sizes)):,} sizes"
    return Chart(title, words, x, y, [corner, Mark(dots=dots)], note=note)


def _steps() -> list[int]:
    """1, 2, 5, 10, 20, ... as far as a text can be long."""
    return [factor * 10**power for power in range(12) for factor in (1, 2, 5)]


def _span(first: int, step: int) -> str:
    return str(first) if step == 1 else f"{first:,} to {first + step - 1:,}"
