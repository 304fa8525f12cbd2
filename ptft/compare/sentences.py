"""What a comparison's report says in sentences: nothing that was not measured, nothing without its
interval."""

from collections.abc import Sequence

from ptft.artifact import RunFiles, read_json
from ptft.compare.arms import START
from ptft.compare.gathered import Arm
from ptft.compare.more_labels import more_labels
from ptft.compare.recommend import Recommendation
from ptft.compare.results import Cell
from ptft.compare.selected import run_of_start
from ptft.compare.stats import paired_interval
from ptft.compare.unlabelled_worth import Worth, unlabelled_worth
from ptft.recipe import ClassifyObjective, Comparison, DetectObjective
from ptft.recipe.comparison import per_class

__all__ = [
    "article",
    "find_arm",
    "gain_of",
    "passed_over",
    "points",
    "sentences",
    "start_of",
    "unit",
    "worth_told",
]

_PASSED_OVER = {
    "skipped": "samples could not be read and are left out",
    "captions_ended_early": "captions end early, at a special token that they spell out",
    "captions_too_long": "captions have more tokens than the model reads and are cut",
}


def unit(comparison: Comparison) -> str:
    """What a budget counts."""
    if per_class(comparison):
        return "labels of each class"
    if isinstance(comparison.objective, ClassifyObjective):
        return "labelled samples"
    return "pictures" if isinstance(comparison.objective, DetectObjective) else "labels"


def find_arm(arms: Sequence[Arm], name: str, budget: int) -> Arm:
    """The arm of a name at a budget."""
    return next(arm for arm in arms if (arm.name, arm.budget) == (name, budget))


def start_of(arms: Sequence[Arm], budget: int) -> Arm:
    """The starting model, as it is chosen among at a budget."""
    return next(arm for arm in arms if arm.kind == START and arm.budget == budget)


def gain_of(arm: Arm, over: Arm, confidence: float) -> tuple[float, float, float]:
    """How much better an arm is than another on test, and the ends of the paired interval."""
    if arm is over:
        return 0.0, 0.0, 0.0
    seeds = min(arm.seeds, over.seeds)
    low, high = paired_interval(arm.test_sq[:seeds], over.test_sq[:seeds], confidence=confidence)
    return arm.test - over.test, low, high


def points(found: tuple[float, float, float]) -> str:
    """A difference of shares in points, with its interval."""
    value, low, high = (100 * one for one in found)
    return f"{value:+z.1f} points ({low:+z.1f} to {high:+z.1f})"


def sentences(
    comparison: Comparison, arms: Sequence[Arm], chosen: Sequence[Recommendation]
) -> list[str]:
    """Say the result; the first sentence is the headline."""
    section, last = comparison.compare, chosen[-1]
    start = start_of(arms, last.budget)
    taken = find_arm(arms, last.arm, last.budget)
    said = [_headline(comparison, arms, last, start), _reached(comparison, taken)]
    said.append(_rule(comparison, arms, last))
    more = 256 if last.budget >= 256 else last.budget
    found = more_labels(arms, chosen, more=more, confidence=section.confidence)
    if found is not None:
        moved = points((found.moved, found.moved_low, found.moved_high))
        if found.tells:
            said.append(
                f"{more:,} more {unit(comparison)} would add about {100 * found.gain:.1f} points "
                f"({100 * found.low:.1f} to {100 * found.high:.1f}), if what they add goes on as "
                f"between {found.before:,} and {found.last:,}: {moved}."
            )
        else:
            said.append(
                f"What more {unit(comparison)} would add cannot be told: between {found.before:,} "
                f"and {found.last:,} test moved by {moved}."
            )
    return said


def _headline(comparison: Comparison, arms: Sequence[Arm], last: Recommendation, start: Arm) -> str:
    section, taken = comparison.compare, find_arm(arms, last.arm, last.budget)
    budget = f"With {taken.budget:,} {unit(comparison)}"
    how = f"{100 * section.confidence:.4g} % interval, {_seeds(taken)}"
    if taken.kind == START:
        return f"{budget}: do not fine-tune.{_instead(comparison, arms, last, start)}"
    gain = gain_of(taken, start, section.confidence)
    what = taken.shown
    if taken.kind == "soup":
        what += f" (the mean of {section.soup} trainings of {taken.base} on the same labels)"
    said = f"{budget}: {what}, {points(gain)} over the start; {how}."
    if gain[1] <= 0.0 <= gain[2]:
        said += " That is not told from none."
    return said


def _instead(comparison: Comparison, arms: Sequence[Arm], last: Recommendation, start: Arm) -> str:
    """What the best of the arms that learned would have given, and why it is not taken; empty where
    none learned."""
    section, other = comparison.compare, _best_trained(arms, last.budget, start)
    if other is start:
        return ""
    gain = points(gain_of(other, start, section.confidence))
    said = f" Of the arms that learn {other.shown} is best on validation: {gain} from the start"
    if section.retain and last.holding[other.name] < section.retention_probability:
        said += f", and it probably keeps less than {100 * section.retention:.4g} %"
    return f"{said}; {100 * section.confidence:.4g} % interval, {_seeds(other)}."


def _reached(comparison: Comparison, taken: Arm) -> str:
    section = comparison.compare
    queries = taken.test_sq.shape[1]
    said = (
        f"It reaches {100 * taken.test:.1f} % on test ({100 * taken.low:.1f} to "
        f"{100 * taken.high:.1f}; {queries:,} {_queries(comparison)})"
    )
    if not section.retain:
        return (
            f"{said}. What it forgets was not measured: compare.retain names no set that is to be "
            "kept."
        )
    return (
        f"{said} and keeps {100 * taken.test_retention:.1f} % of what the start knew there, and "
        f"{100 * taken.val_retention:.1f} % on validation, where {100 * section.retention:.4g} % "
        "are asked."
    )


def _rule(comparison: Comparison, arms: Sequence[Arm], last: Recommendation) -> str:
    section = comparison.compare
    taken = find_arm(arms, last.arm, last.budget)
    queries, asked = len(taken.asked.queries), f"{100 * section.retention:.4g} %"
    kept = (
        f"of the arms that keep {asked} with a probability of at least "
        f"{100 * section.retention_probability:.4g} %, "
        if section.retain
        else ""
    )
    detect = isinstance(comparison.objective, DetectObjective)
    each = "" if detect else f", each {100 / queries:.1f} points"  # a precision has no such step
    as_good = [
        find_arm(arms, name, last.budget).shown for name in last.equals if name != taken.name
    ]
    said = (
        f"The rule, on validation and labels that an arm did not learn from ({queries:,} "
        f"{_queries(comparison)}{each}): {kept}the one that is expected to be highest: "
        f"{taken.shown}, {100 * last.figures[taken.name]:.1f} %. As good, at most "
        f"{100 * section.margin:g} point(s) lower and not told from it: "
        f"{', '.join(as_good) or 'none'}. {_sure(comparison, last)}"
    )
    if last.regret == 0.0:
        return f"{said} On test it is the best candidate too."
    first = find_arm(arms, last.test_best, last.budget)
    ahead = gain_of(first, taken, section.confidence)
    return f"{said} On test {first.shown} was ahead by {points(ahead)}."


def _queries(comparison: Comparison) -> str:
    return "pictures" if isinstance(comparison.objective, DetectObjective) else "queries"


def _sure(comparison: Comparison, last: Recommendation) -> str:
    """Say what validation expects of the choice, before test tells."""
    section = comparison.compare
    said = (
        f"It is expected to lose {100 * last.expected_regret:.1f} points against the best arm "
        f"allowed; a test of this size shows {100 * last.regret_low:.1f} to "
        f"{100 * last.regret_high:.1f} ({100 * section.confidence:.4g} % interval)."
    )
    if section.retain:
        said += (
            f" It keeps {100 * section.retention:.4g} % with a probability of "
            f"{100 * last.holds:.0f} %; such a test shows {100 * last.kept_low:.1f} to "
            f"{100 * last.kept_high:.1f} %."
        )
    return said


def worth_told(comparison: Comparison, arms: Sequence[Arm]) -> list[str]:
    """Say in a sentence for each budget what pictures without labels were worth there."""
    return [
        _worth(comparison, one)
        for one in unlabelled_worth(arms, confidence=comparison.compare.confidence)
    ]


def _worth(comparison: Comparison, found: Worth) -> str:
    said = (
        f"{found.pictures:,} pictures without labels, at {found.budget:,} {unit(comparison)}: "
        f"{found.arm} is {points((found.gain, found.low, found.high))} from {found.over}, the best "
        "of the others on validation"
    )
    if found.high < 0.0:
        return f"{said}: they did harm."
    if not found.helps:
        return f"{said}: that they help is not told from none."
    if found.labels is None:
        return f"{said}: they help, by more than the labels that were compared."
    low, high = (
        "beyond what was compared" if end is None else f"{end:.1f}"
        for end in (found.labels_low, found.labels_high)
    )
    return (
        f"{said}: 1,000 of them are worth about {found.labels:.1f} {unit(comparison)} more ({low} "
        f"to {high}), on a line through the budgets."
    )


def _seeds(arm: Arm) -> str:
    return f"{arm.seeds} seed{'s' if arm.seeds > 1 else ', so that it holds for its labels alone'}"


def passed_over(cells: Sequence[Cell]) -> list[str]:
    """Say in a sentence what of test was left out or cut, the same for every arm."""
    most: dict[str, int] = {}
    for cell in cells:
        for name, count in cell.passed_over.items():
            most[name] = max(count, most.get(name, 0))
    parts = [f"{count:,} {_PASSED_OVER[name]}" for name, count in most.items()]
    return [f"Of test: {'; '.join(parts)}."] if parts else []


def article(
    comparison: Comparison, arms: Sequence[Arm], chosen: Sequence[Recommendation]
) -> list[list[str]]:
    """Tabulate pretraining beside fine-tuning, in this domain's own figures."""
    section, last = comparison.compare, chosen[-1]
    taken, start = find_arm(arms, last.arm, last.budget), start_of(arms, last.budget)
    tuned = taken if taken.kind != START else _best_trained(arms, last.budget, start)
    gain = points(gain_of(tuned, start, section.confidence))
    before = _pretraining(comparison)
    labels = f"{tuned.budget:,} {unit(comparison)}"
    kept = f"; {100 * tuned.test_retention:.1f} % of the rest kept" if section.retain else ""
    return [
        ["", "pretraining", f"fine-tuning ({tuned.shown})"],
        [
            "definition",
            f"what a model knows before it sees a label of {comparison.name}: "
            f"{100 * start.test:.1f} % of test",
            f"{100 * tuned.trainable_share:.3g} % of its weights learn on, from {labels}: "
            f"{100 * tuned.test:.1f} % of test",
        ],
        ["data requirement", before["data"], labels],
        [
            "training time",
            before["time"],
            f"{tuned.cpu_seconds:,.1f} CPU-s, its share of {section.trials} trials included",
        ],
        [
            "purpose",
            f"a start for any domain: here {100 * start.test:.1f} % without a label",
            f"this domain: {gain} beyond the start",
        ],
        ["computational cost", before["cost"], f"{tuned.flops / 1e12:,.3g} TFLOP"],
        [
            "output",
            "the model as it is",
            f"{tuned.artefact_bytes / 1e6:,.1f} MB to store beside it{kept}",
        ],
        ["use case", *_use_cases(comparison, arms, chosen)],
    ]


def _use_cases(
    comparison: Comparison, arms: Sequence[Arm], chosen: Sequence[Recommendation]
) -> list[str]:
    """When each is the better way here: from the least budget on from which all gains are above
    zero; where the last one is not, the budgets that have such a gain are named."""
    confidence, sure = comparison.compare.confidence, []
    for one in chosen:
        taken = find_arm(arms, one.arm, one.budget)
        if taken.kind != START:
            _, low, _ = gain_of(taken, start_of(arms, one.budget), confidence)
            if low > 0.0:
                sure.append(one.budget)
    most = chosen[-1].budget
    if not sure:
        return [
            f"up to {most:,} {unit(comparison)}: no gain was told from none",
            f"with more than {most:,} {unit(comparison)}, if at all: that was not measured",
        ]
    unsure = [one.budget for one in chosen if one.budget not in sure]
    if most in unsure:
        at, other = (", ".join(f"{one:,}" for one in some) for some in (sure, unsure))
        return [
            f"at {other} {unit(comparison)}: no gain was told from none",
            f"at {at} {unit(comparison)}: the gain's interval is above zero",
        ]
    least = min(one for one in sure if not unsure or one > unsure[-1])
    fewer = [one.budget for one in chosen if one.budget < least]
    return [
        f"up to {fewer[-1]:,} {unit(comparison)}: no gain was told from none"
        if fewer
        else f"without labels; below {least:,} nothing was measured",
        f"from {least:,} {unit(comparison)} on: the gain's interval is above zero",
    ]


def _best_trained(arms: Sequence[Arm], budget: int, start: Arm) -> Arm:
    """Of the arms that learned the best on validation, where the start is recommended."""
    trained = [arm for arm in arms if arm.budget == budget and arm.kind != START]
    return max(trained, key=lambda arm: (arm.val, arm.name), default=start)


def _pretraining(comparison: Comparison) -> dict[str, str]:
    """Read what the starting run cost from its own record, where the start is a run."""
    start = run_of_start(comparison)
    if start is None:
        return dict.fromkeys(("data", "time", "cost"), "not recorded with the start")
    run = read_json(start / RunFiles.RUN)
    return {
        "data": f"{run['seen']:,} pairs seen, no label of this domain",
        "time": f"{run['seconds']:,.0f} s by the clock",
        "cost": f"{run['seen']:,} samples on {run['device']}",
    }
