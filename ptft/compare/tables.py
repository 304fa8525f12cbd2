"""The tables of a comparison's report: rows of words, the first the heading."""

from collections.abc import Sequence

from ptft.compare.arms import START
from ptft.compare.gathered import Arm
from ptft.compare.recommend import Recommendation
from ptft.compare.results import MIXED
from ptft.compare.sentences import find_arm, gain_of, points, start_of
from ptft.recipe import Comparison
from ptft.recipe.comparison import CompareSection

__all__ = [
    "TableRows",
    "choices_table",
    "costs_table",
    "results_table",
    "told_name",
    "verdicts_table",
]

TableRows = list[list[str]]


def told_name(arm: Arm) -> str:
    """An arm, of a soup what it is the mean of, and of a mix how much of it was trained."""
    if arm.kind == "soup":
        return f"{arm.name} of {arm.base}"
    alpha = arm.chosen.get("alpha") if arm.name.endswith(MIXED) else None
    if not isinstance(alpha, float):
        return arm.shown
    return f"{arm.shown}, {f'{alpha:g}' if alpha < 1.0 else 'all'} of it"


def _cut(arm: Arm, comparison: Comparison) -> str:
    """Say that an arm was not measured at its length, where the recipe's own cut it short."""
    asked = comparison.compare.samples_per_label
    if not 0.0 < arm.passes < asked:
        return ""
    return (
        f" (cut short at {arm.passes:.3g} of {asked:g} passes: what it could reach is not measured)"
    )


def choices_table(
    comparison: Comparison, arms: Sequence[Arm], chosen: Sequence[Recommendation]
) -> TableRows:
    """What is recommended at each budget, with the validation figures that decided."""
    section = comparison.compare
    retains = bool(section.retain)
    rows = [
        [
            "labels",
            "recommended",
            "val",
            *["val retention"] * retains,
            "test",
            "over the start",
            *["retention"] * retains,
            "best on test",
            "regret",
        ]
    ]
    for one in chosen:
        arm, start = find_arm(arms, one.arm, one.budget), start_of(arms, one.budget)
        over = "is the start" if arm is start else points(gain_of(arm, start, section.confidence))
        rows.append(
            [
                f"{one.budget:,}",
                told_name(arm),
                _percent(arm.val),
                *[_percent(arm.val_retention)] * retains,
                f"{_percent(arm.test)} ({_percent(arm.low)} to {_percent(arm.high)})",
                over,
                *[_percent(arm.test_retention)] * retains,
                told_name(find_arm(arms, one.test_best, one.budget)),
                _percent(one.regret),
            ]
        )
    return rows


def results_table(
    comparison: Comparison, arms: Sequence[Arm], chosen: Sequence[Recommendation]
) -> TableRows:
    """Tabulate all figures that a second run repeats: none of them is a time."""
    retains = bool(comparison.compare.retain)
    calibrated = any(arm.ece is not None for arm in arms)
    rows = [
        [
            "labels",
            "arm",
            "val",
            *["val retention"] * retains,
            "test",
            "band",
            *["retention"] * retains,
            *["ece", "ece scaled"] * calibrated,
            "learns",
            "GFLOP",
            "seeds",
        ]
    ]
    taken = {(one.budget, one.arm) for one in chosen}
    for arm in sorted(arms, key=lambda arm: (arm.budget, -arm.val, arm.name)):
        rows.append(
            [
                f"{arm.budget:,}",
                told_name(arm)
                + _cut(arm, comparison)
                + (" *" if (arm.budget, arm.name) in taken else ""),
                _percent(arm.val),
                *[_percent(arm.val_retention)] * retains,
                _percent(arm.test),
                f"{_percent(arm.low)} to {_percent(arm.high)}",
                *[_percent(arm.test_retention)] * retains,
                *[_percent(e) for e in (arm.ece, arm.ece_scaled) if e is not None],
                f"{100 * arm.trainable_share:.3g}",
                f"{arm.flops / 1e9:,.1f}",
                f"{arm.seeds}",
            ]
        )
    return rows


def costs_table(arms: Sequence[Arm]) -> TableRows:
    """What the arms took on this machine, in mean over seeds."""
    rows = [["labels", "arm", "CPU-s", "s by the clock", "peak MB", "MB stored", "chosen"]]
    for arm in sorted(arms, key=lambda arm: (arm.budget, arm.name)):
        chosen = ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in arm.chosen.items()
        )
        rows.append(
            [
                f"{arm.budget:,}",
                told_name(arm),
                f"{arm.cpu_seconds:.1f}",
                f"{arm.wall_seconds:.1f}",
                f"{arm.peak_bytes / 1e6:,.0f}" if arm.peak_bytes else "not measured",
                f"{arm.artefact_bytes / 1e6:,.2f}",
                chosen or "as it stands",
            ]
        )
    return rows


def verdicts_table(
    comparison: Comparison, arms: Sequence[Arm], choice: Recommendation
) -> TableRows:
    """What spoke on validation for and against every arm at a budget."""
    section = comparison.compare
    own = [arm for arm in arms if arm.budget == choice.budget]
    retains = bool(section.retain)
    rows = [["arm", "val", "expected", *["val retention", "holds"] * retains, "because"]]
    for arm in sorted(own, key=lambda arm: (-choice.figures[arm.name], arm.name)):
        holds = f"{100 * choice.holding[arm.name]:.0f} %"
        kept = [_percent(arm.val_retention), holds] * retains
        why = _verdict(arm, choice, section)
        figures = [_percent(arm.val), _percent(choice.figures[arm.name])]
        rows.append([told_name(arm), *figures, *kept, why])
    return rows


def _verdict(arm: Arm, choice: Recommendation, section: CompareSection) -> str:
    """Why an arm is taken, or is not."""
    behind = f"{100 * (choice.figures[arm.name] - choice.figures[choice.arm]):+z.1f} points"
    if arm.name == choice.arm:
        return "recommended"
    if arm.kind != START and choice.holding[arm.name] < section.retention_probability:
        return f"probably retains less than {100 * section.retention:.4g} %"
    if arm.name in choice.equals:
        return f"as good: {behind}"
    return behind


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
