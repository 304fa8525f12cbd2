"""The charts of a comparison: figures over labels, the plane of retention, and the costs."""

from collections.abc import Sequence

from ptft.compare.recommend import Arm, Recommendation, pareto
from ptft.pages.chart import Axis, Bars, Chart, Dot, Mark, linear_axis

__all__ = ["cost_bars", "label_curves", "retention_plane"]

_WIDTH, _HEIGHT = 720, 380
_ROOM = 1.2  # a ratio of labels beyond the outer budgets, for their marks


def label_curves(arms: Sequence[Arm], chosen: Sequence[Recommendation], metric: str) -> Chart:
    """Draw the metric over labels, with bands, the recommended arm ringed at every budget."""
    colours = _colours(arms)
    marks = []
    for name in sorted({arm.name for arm in arms}, key=lambda name: ("+" in name, name)):
        points = sorted((arm for arm in arms if arm.name == name), key=lambda arm: arm.budget)
        marks.append(
            Mark(
                name=name,
                value=f"{100 * points[-1].test:.1f} %",
                colour=colours[_base(name)],
                line=[(arm.budget, 100 * arm.test) for arm in points],
                band=[(arm.budget, 100 * arm.low, 100 * arm.high) for arm in points],
                dots=[_dot(arm.budget, arm) for arm in points],
                dashed=name != _base(name),
            )
        )
    rings = [Dot(r.budget, 100 * r.test, 7.0, f"{r.arm} at {r.budget:,}") for r in chosen]
    marks.append(Mark(name="recommended", colour=None, dots=rings, hollow=True))
    budgets = sorted({arm.budget for arm in arms})
    x = Axis(
        budgets[0] / _ROOM,
        budgets[-1] * _ROOM,
        [(budget, f"{budget:,}") for budget in budgets],
        "labels",
        log=True,
    )
    y = _percent([100 * arm.low for arm in arms], [100 * arm.high for arm in arms])
    words = f"{metric} over labels; recommended: " + ", ".join(
        f"{r.arm} with {100 * r.test:.1f} % at {r.budget:,}" for r in chosen
    )
    return Chart(f"{metric} on test", words, x, y, marks, width=_WIDTH, height=_HEIGHT)


def retention_plane(arms: Sequence[Arm], bound: float, metric: str) -> Chart:
    """Draw the metric over retention at one budget; the Pareto front is joined."""
    colours = _colours(arms)
    x = _percent([100 * bound, *(100 * arm.test_retention for arm in arms)])
    x = Axis(x.low, x.high, x.ticks, "retention on test, of the starting model's figure")
    y = _percent([100 * arm.test for arm in arms])
    front = [(100 * arm.test_retention, 100 * arm.test) for arm in pareto(arms)]
    marks = [
        Mark(
            name="asked for",
            colour=7,
            dashed=True,
            line=[(100 * bound, y.low), (100 * bound, y.high)],
        ),
        Mark(name="Pareto front", colour=7, line=front),
        *(
            Mark(
                name=arm.name,
                value=f"{100 * arm.test:.1f} %",
                colour=colours[_base(arm.name)],
                dots=[_dot(100 * arm.test_retention, arm, 5.0)],
                hollow=arm.name != _base(arm.name),
            )
            for arm in arms
        ),
    ]
    words = f"{metric} over retention; on the front: " + ", ".join(a.name for a in pareto(arms))
    return Chart(f"{metric} on test", words, x, y, marks, width=_WIDTH, height=_HEIGHT)


def cost_bars(arms: Sequence[Arm]) -> list[Bars]:
    """Draw CPU seconds, MB to store and share that learns, of each arm at one budget."""
    trained = [arm for arm in arms if not arm.name.endswith("+wise")]
    panels = (
        ("CPU seconds, search included", [arm.cpu_seconds for arm in trained]),
        ("MB to store", [arm.artefact_bytes / 1e6 for arm in trained]),
        ("% of weights that learn", [100 * arm.trainable_share for arm in trained]),
    )
    return [
        Bars(title, [(a.name, n, f"{n:.3g}") for a, n in zip(trained, numbers, strict=True)])
        for title, numbers in panels
    ]


def _base(name: str) -> str:
    """The arm that a mix is made of."""
    return name.removesuffix("+wise")


def _colours(arms: Sequence[Arm]) -> dict[str, int]:
    names = sorted({_base(arm.name) for arm in arms})
    return {name: number for number, name in enumerate(names)}


def _dot(x: float, arm: Arm, radius: float = 3.0) -> Dot:
    words = f"{arm.name}: {100 * arm.test:.1f} % ({100 * arm.low:.1f} to {100 * arm.high:.1f})"
    return Dot(x, 100 * arm.test, radius, words)


def _percent(*values: Sequence[float]) -> Axis:
    every = [value for part in values for value in part]
    return linear_axis(min(every), max(every), unit="%")
