"""The charts of a comparison: figures over labels, the plane of retention, and the costs."""

from collections.abc import Sequence

from ptft.compare.gathered import Arm
from ptft.compare.recommend import Recommendation, pareto
from ptft.compare.results import MIXED, shown_name
from ptft.pages.chart import Axis, Bars, Chart, Dot, Mark, linear_axis

__all__ = ["cost_bars", "label_curves", "retention_plane"]

_WIDTH, _HEIGHT = 360, 280  # as a phone shows it
_ROOM = 1.2  # a ratio of labels beyond the outer budgets, for their marks
_SPAN = 0.15  # below what is recommended and asked for, what a plane shows of both figures


def label_curves(
    arms: Sequence[Arm], chosen: Sequence[Recommendation], metric: str, unit: str
) -> Chart:
    """Draw the metric over labels, with bands, the recommended arm ringed at every budget. A mix
    has its arm's colour, and is broken and hollow."""
    colours = _colours(arms)
    least = min([r.test for r in chosen] + [a.test for a in arms if a.kind == "zero_shot"]) - _SPAN
    names = sorted({arm.name for arm in arms}, key=lambda name: (_base(name), name))
    low = [name for name in names if all(a.test < least for a in arms if a.name == name)]
    note = f"far below, not drawn: {', '.join(map(shown_name, low))}" if low else ""
    arms, marks = [arm for arm in arms if arm.name not in low], []
    for name in (name for name in names if name not in low):
        points = sorted((arm for arm in arms if arm.name == name), key=lambda arm: arm.budget)
        marks.append(
            Mark(
                name=shown_name(name),
                value=f"{100 * points[-1].test:.1f} %",
                colour=colours[_base(name)],
                line=[(arm.budget, 100 * arm.test) for arm in points],
                band=[(arm.budget, 100 * arm.low, 100 * arm.high) for arm in points],
                dots=[_dot(arm.budget, arm) for arm in points],
                dashed=name != _base(name),
                hollow=name != _base(name),
            )
        )
    rings = [
        Dot(r.budget, 100 * r.test, 7.0, f"{shown_name(r.arm)} at {r.budget:,}") for r in chosen
    ]
    marks.append(Mark(name="recommended", colour=None, dots=rings, hollow=True))
    budgets = sorted({arm.budget for arm in arms})
    x = Axis(
        budgets[0] / _ROOM,
        budgets[-1] * _ROOM,
        [(budget, f"{budget:,}") for budget in budgets],
        unit,
        log=True,
    )
    y = _percent([100 * arm.low for arm in arms], [100 * arm.high for arm in arms])
    words = f"{metric} over {unit}; recommended: " + ", ".join(
        f"{shown_name(r.arm)} with {100 * r.test:.1f} % at {r.budget:,}" for r in chosen
    )
    title = f"{metric} on test over {unit}"
    return Chart(title, words, x, y, marks, note=note, width=_WIDTH, height=_HEIGHT)


def retention_plane(
    arms: Sequence[Arm], choice: Recommendation, bound: float, metric: str
) -> Chart:
    """Draw the metric over retention at one budget; the Pareto front is joined. The axes show
    where the choice is: what is far below (an arm from random weights, say) stands at the edge."""
    colours = _colours(arms)
    taken = next(arm for arm in arms if arm.name == choice.arm)
    least_kept = min(bound, taken.test_retention) - _SPAN
    least = min(taken.test, *(a.test for a in arms if a.kind == "zero_shot")) - _SPAN
    beyond = [arm for arm in arms if arm.test < least or arm.test_retention < least_kept]
    inside = [arm for arm in arms if arm not in beyond]
    x = _percent([100 * bound, *(100 * arm.test_retention for arm in inside)])
    x = Axis(x.low, x.high, x.ticks, "retention on test, of the starting model's figure")
    y = _percent([100 * arm.test for arm in inside])
    front = [a for a in pareto(arms) if a in inside]
    marks = [
        Mark(
            name="asked for",
            colour=7,
            dashed=True,
            line=[(100 * bound, y.low), (100 * bound, y.high)],
        ),
        Mark(
            name="Pareto front",
            colour=7,
            line=[(100 * arm.test_retention, 100 * arm.test) for arm in front],
        ),
        *(
            Mark(
                name=shown_name(arm.name) + (" (at the edge)" if arm in beyond else ""),
                value=f"{100 * arm.test:.1f} %",
                colour=colours[_base(arm.name)],
                dots=[_placed(arm, x, y)],
                hollow=arm.name != _base(arm.name),
            )
            for arm in arms
        ),
        Mark(name="recommended", colour=None, dots=[_placed(taken, x, y, 8.0)], hollow=True),
    ]
    words = f"{metric} over retention; on the front: " + ", ".join(a.shown for a in pareto(arms))
    note = ""
    if beyond:
        far = ", ".join(
            f"{arm.shown} ({100 * arm.test:.0f} %, keeps {100 * arm.test_retention:.0f} %)"
            for arm in beyond
        )
        note = f"beyond the edge: {far}"
    title = f"{metric} and retention on test at {choice.budget:,}"
    return Chart(title, words, x, y, marks, note=note, width=_WIDTH, height=_HEIGHT)


def cost_bars(arms: Sequence[Arm]) -> list[Bars]:
    """Draw CPU seconds, MB to store and share that learns, of each arm at one budget."""
    trained = [arm for arm in arms if not arm.name.endswith(MIXED)]
    peaks = [(arm.name, arm.peak_bytes / 1e6) for arm in trained if arm.peak_bytes]
    panels = (
        ("CPU seconds, search included", [(arm.name, arm.cpu_seconds) for arm in trained]),
        ("MB to store", [(arm.name, arm.artefact_bytes / 1e6) for arm in trained]),
        ("% of weights that learn", [(arm.name, 100 * arm.trainable_share) for arm in trained]),
        ("peak MB of training", peaks),
    )
    return [
        Bars(title, [(name, number, f"{number:.3g}") for name, number in rows])
        for title, rows in panels
        if rows
    ]


def _base(name: str) -> str:
    """The arm that a mix is made of."""
    return name.removesuffix(MIXED)


def _colours(arms: Sequence[Arm]) -> dict[str, int]:
    names = sorted({_base(arm.name) for arm in arms})
    return {name: number for number, name in enumerate(names)}


def _dot(x: float, arm: Arm, radius: float = 3.0) -> Dot:
    words = f"{arm.shown}: {100 * arm.test:.1f} % ({100 * arm.low:.1f} to {100 * arm.high:.1f})"
    return Dot(x, 100 * arm.test, radius, words)


def _placed(arm: Arm, x: Axis, y: Axis, radius: float = 5.0) -> Dot:
    """An arm in the plane, or at its edge."""
    dot = _dot(min(max(100 * arm.test_retention, x.low), x.high), arm, radius)
    return dot._replace(y=min(max(dot.y, y.low), y.high))


def _percent(*values: Sequence[float]) -> Axis:
    every = [value for part in values for value in part]
    return linear_axis(min(every), max(every), unit="%")
