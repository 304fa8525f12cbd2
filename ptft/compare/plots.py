"""The pictures of a comparison, as SVG files' text: curves over labels, the plane, the costs."""

import io
from collections.abc import Sequence
from typing import Any

from ptft.compare.recommend import Arm, Recommendation, pareto

__all__ = ["cost_bars", "label_curves", "retention_plane"]

_COLOURS = (
    *("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7"),
    *("#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"),
)  # Observable's ten, told apart by most eyes
_DPI = 100


def label_curves(arms: Sequence[Arm], chosen: Sequence[Recommendation], metric: str) -> str:
    """Target figure over labels, a band each, the recommended arm marked at every budget."""
    figure, axis = _figure(8.0, 4.6)
    colour = _colours(arms)
    for name in sorted({arm.name for arm in arms}, key=lambda name: ("+" in name, name)):
        points = sorted((arm for arm in arms if arm.name == name), key=lambda arm: arm.budget)
        x = [arm.budget for arm in points]
        base = name.removesuffix("+wise")
        axis.plot(
            x,
            [100 * arm.test for arm in points],
            label=name,
            color=colour[base],
            linestyle="--" if name != base else "-",
            marker="o",
            markersize=3,
            linewidth=1.5,
        )
        axis.fill_between(
            x,
            [100 * arm.low for arm in points],
            [100 * arm.high for arm in points],
            color=colour[base],
            alpha=0.08,
            linewidth=0,
        )
    axis.plot(
        [r.budget for r in chosen],
        [100 * r.test for r in chosen],
        linestyle="none",
        marker="o",
        markersize=10,
        markerfacecolor="none",
        markeredgecolor="black",
        label="recommended",
    )
    axis.set_xscale("log", base=2)
    budgets = sorted({arm.budget for arm in arms})
    axis.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    axis.minorticks_off()
    axis.set_xlabel("labels")
    axis.set_ylabel(f"{metric}, % (test)")
    return _svg(figure, axis)


def retention_plane(arms: Sequence[Arm], bound: float, metric: str) -> str:
    """Target over retention at one budget; the front that nothing beats on both is joined."""
    figure, axis = _figure(8.0, 4.6)
    colour = _colours(arms)
    front = pareto(arms)
    axis.plot(
        [100 * arm.test_retention for arm in front],
        [100 * arm.test for arm in front],
        color="#9498a0",
        linewidth=1,
        zorder=1,
        label="Pareto front",
    )
    axis.axvline(100 * bound, color="black", linestyle=":", linewidth=1)
    axis.annotate("bound", (100 * bound, axis.get_ylim()[0]), fontsize=8, rotation=90)
    for arm in arms:
        base = arm.name.removesuffix("+wise")
        axis.scatter(
            [100 * arm.test_retention],
            [100 * arm.test],
            color=colour[base],
            marker="D" if arm.name != base else "o",
            s=36,
            label=arm.name,
            zorder=2,
        )
    axis.set_xlabel("retention, % of the starting model's figure (test)")
    axis.set_ylabel(f"{metric}, % (test)")
    return _svg(figure, axis)


def cost_bars(arms: Sequence[Arm]) -> str:
    """CPU seconds, bytes to store and share that learns, of each arm at one budget."""
    shown = [arm for arm in arms if not arm.name.endswith("+wise")]
    figure, axes = _figures(9.0, 0.6 + 0.35 * len(shown), 3)
    names = [arm.name for arm in shown]
    panels: tuple[tuple[str, list[float]], ...] = (
        ("CPU seconds, search included", [arm.cpu_seconds for arm in shown]),
        ("MB to store", [arm.artefact_bytes / 1e6 for arm in shown]),
        ("% of weights that learn", [100 * arm.trainable_share for arm in shown]),
    )
    for axis, (title, values) in zip(axes, panels, strict=True):
        bars = axis.barh(names, values, color="#4269d0", height=0.6)
        axis.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
        axis.set_title(title, fontsize=9)
        axis.set_xlim(0, max([*values, 1e-9]) * 1.25)
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        if axis is not axes[0]:
            axis.set_yticklabels([])
    return _svg(figure)


def _colours(arms: Sequence[Arm]) -> dict[str, str]:
    bases = sorted({arm.name.removesuffix("+wise") for arm in arms})
    return {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(bases)}


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure, axes = _figures(width, height, 1)
    return figure, axes[0]


def _figures(width: float, height: float, columns: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasSVG(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False).flat)


def _svg(figure: Any, axis: Any = None) -> str:
    if axis is not None:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    stream = io.StringIO()
    # no date and fixed ids: the same cells draw the same file
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "ptft", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=False)
    text = stream.getvalue()
    return text[text.index("<svg") :]
