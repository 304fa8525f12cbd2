"""The report of a comparison: JSON for programs, Markdown and one HTML file for people."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ptft import __version__
from ptft.artifact import RunFiles, read_json, write_atomic, write_json
from ptft.compare.metric import default_metric
from ptft.compare.plots import cost_bars, label_curves, retention_plane
from ptft.compare.recommend import Arm, Recommendation, counterfactual, gather, recommend
from ptft.compare.results import Cell
from ptft.model_source import Run, resolve
from ptft.pages.document import render
from ptft.pages.markdown import inline, row
from ptft.recipe import ClassifyObjective, Comparison

__all__ = ["results_table", "write_report"]

_PASSED_OVER = {
    "skipped": "samples could not be read and are left out",
    "captions_ended_early": "captions end early, at a special token that they spell out",
    "captions_too_long": "captions have more tokens than the model reads and are cut",
}

TableRows = list[list[str]]
"""TableRows of words; the first is the heading."""


def write_report(
    comparison: Comparison,
    cells: Sequence[Cell],
    folder: Path,
    *,
    left: int,
    remarks: Sequence[str] = (),
) -> None:
    """Write ``results.json``, ``report.md`` and ``report.html`` from finished cells.

    Args:
        left: cells that are missing; the report says so.
        remarks: sentences on what to mind: trainings that the recipe's own length cuts short, say.
    """
    section = comparison.compare
    arms = gather(cells, confidence=section.confidence)
    whole = [b for b in section.budgets if any(arm.budget == b for arm in arms)]
    chosen = [
        recommend(
            [arm for arm in arms if arm.budget == budget],
            retention=section.retention,
            confidence=section.confidence,
            margin=section.margin,
        )
        for budget in whole
        if any(arm.budget == budget and arm.kind == "zero_shot" for arm in arms)
    ]
    write_json(folder / "results.json", _values(comparison, arms, chosen, left))
    if not chosen:
        return
    said = _sentences(comparison, arms, chosen)
    said += [*_passed_over(cells), *remarks]
    if left:
        said.append(f"Not finished: {left} cells are missing; run the same command again.")
    write_atomic(folder / "report.md", _markdown(comparison, arms, chosen, said))
    write_atomic(folder / "report.html", _page(comparison, arms, chosen, said))


def _passed_over(cells: Sequence[Cell]) -> list[str]:
    """Say in a sentence what of test was left out or cut, the same for every arm."""
    most: dict[str, int] = {}
    for cell in cells:
        for name, count in cell.passed_over.items():
            most[name] = max(count, most.get(name, 0))
    parts = [f"{count:,} {_PASSED_OVER[name]}" for name, count in most.items()]
    return [f"Of test: {'; '.join(parts)}."] if parts else []


def results_table(arms: Sequence[Arm], chosen: Sequence[Recommendation]) -> TableRows:
    """Tabulate all figures that a second run repeats: none of them is a time."""
    rows = [
        [
            "labels",
            "arm",
            "val",
            "test",
            "band",
            "retention",
            "ece",
            "ece scaled",
            "learns",
            "GFLOP",
        ]
    ]
    taken = {(r.budget, r.arm) for r in chosen}
    for arm in sorted(arms, key=lambda arm: (arm.budget, -arm.val, arm.name)):
        mark = " *" if (arm.budget, arm.name) in taken else ""
        rows.append(
            [
                f"{arm.budget:,}",
                arm.name + mark,
                f"{100 * arm.val:.1f}",
                f"{100 * arm.test:.1f}",
                f"{100 * arm.low:.1f} to {100 * arm.high:.1f}",
                f"{100 * arm.test_retention:.1f}",
                f"{100 * arm.ece:.1f}",
                f"{100 * arm.ece_scaled:.1f}",
                f"{100 * arm.trainable_share:.3g}",
                f"{arm.flops / 1e9:,.1f}",
            ]
        )
    return rows


def _values(
    comparison: Comparison, arms: Sequence[Arm], chosen: Sequence[Recommendation], left: int
) -> dict[str, object]:
    plain = [
        {key: value for key, value in vars(arm).items() if key not in ("val_sq", "test_sq")}
        for arm in arms
    ]
    return {
        "name": comparison.name,
        "metric": default_metric(comparison.evaluate[0], comparison.compare.metric),
        "retention": comparison.compare.retention,
        "arms": plain,
        "recommendations": [asdict(r) for r in chosen],
        "cells_left": left,
    }


def _sentences(
    comparison: Comparison, arms: Sequence[Arm], chosen: Sequence[Recommendation]
) -> list[str]:
    """Say the result in sentences."""
    section, last = comparison.compare, chosen[-1]
    start = next(arm for arm in arms if arm.kind == "zero_shot" and arm.budget == last.budget)
    unit = "labels of each class" if _per_class(comparison) else "labels"
    gain = 100 * (last.test - start.test)
    if last.arm == start.name:
        verdict = f"With {last.budget:,} {unit}: do not fine-tune."
    else:
        verdict = f"With {last.budget:,} {unit}: {last.arm}, {gain:+.1f} points over the start."
    said = [
        verdict,
        f"It reaches {100 * last.test:.1f} % on test and keeps {100 * last.test_retention:.1f} % "
        f"of what the start knew (asked: {100 * section.retention:.4g} % on validation).",
        f"The rule: of the arms that retain enough, the highest on validation ({last.best}); then "
        f"the cheapest of those at most {100 * section.margin:g} points lower that a paired "
        f"bootstrap at {100 * section.confidence:.4g} % cannot tell from it "
        f"({', '.join(last.equals)}). On test {_on_test(last)}.",
    ]
    more = 256 if last.budget >= 256 else last.budget
    found = counterfactual(arms, chosen, more)
    if found is not None:
        said.append(
            f"{more:,} more {unit} would add about {100 * found[0]:.1f} points "
            f"({100 * found[1]:.1f} for each doubling between the last two budgets)."
        )
    return said


def _on_test(last: Recommendation) -> str:
    if last.regret == 0.0:
        return "it is the best candidate too"
    return f"the best candidate was {last.test_best}, {100 * last.regret:.1f} points ahead"


def _article(
    comparison: Comparison, arms: Sequence[Arm], chosen: Sequence[Recommendation]
) -> TableRows:
    """Tabulate pretraining beside fine-tuning, in this domain's own figures."""
    last = chosen[-1]
    tuned = next(a for a in arms if (a.name, a.budget) == (last.arm, last.budget))
    start = next(a for a in arms if a.kind == "zero_shot" and a.budget == last.budget)
    before = _pretraining(comparison)
    unit = "of each class" if _per_class(comparison) else "in all"
    return [
        ["", "pretraining", f"fine-tuning ({tuned.name})"],
        [
            "definition",
            "general knowledge from many pairs",
            "the same weights, taken on with labels of one domain",
        ],
        ["data requirement", before["data"], f"{tuned.budget:,} labels {unit}"],
        ["training time", before["time"], f"{tuned.cpu_seconds:,.1f} CPU-s, search included"],
        ["purpose", "a start for any domain", f"{comparison.name}"],
        ["computational cost", before["cost"], f"{tuned.flops / 1e12:,.3f} TFLOP"],
        [
            "output",
            f"a model: {100 * start.test:.1f} % here, untouched",
            f"{tuned.artefact_bytes / 1e6:,.1f} MB: {100 * tuned.test:.1f} % here, "
            f"{100 * tuned.test_retention:.1f} % of the rest kept",
        ],
        [
            "use case",
            "many domains, few labels in each",
            "this domain"
            if tuned.kind != "zero_shot"
            else "none: at this budget the start is as good",
        ],
    ]


def _pretraining(comparison: Comparison) -> dict[str, str]:
    """Read what the starting run cost from its own record, where the start is a run."""
    start = resolve(comparison.init.from_) if comparison.init else None
    if not isinstance(start, Run):
        return {"data": "not recorded", "time": "not recorded", "cost": "not recorded"}
    run = read_json(start.path / RunFiles.RUN)
    return {
        "data": f"{run['seen']:,} pairs seen, no label of this domain",
        "time": f"{run['seconds']:,.0f} s",
        "cost": f"{run['seen']:,} samples on {run['device']}",
    }


def _costs(arms: Sequence[Arm]) -> TableRows:
    rows = [["labels", "arm", "CPU-s", "peak MB", "MB stored", "chosen"]]
    for arm in sorted(arms, key=lambda arm: (arm.budget, arm.name)):
        chosen = ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in arm.chosen.items()
        )
        rows.append(
            [
                f"{arm.budget:,}",
                arm.name,
                f"{arm.cpu_seconds:.1f}",
                f"{arm.peak_bytes / 1e6:,.0f}" if arm.peak_bytes else "unknown",
                f"{arm.artefact_bytes / 1e6:,.2f}",
                chosen or "as it stands",
            ]
        )
    return rows


def _choices(chosen: Sequence[Recommendation]) -> TableRows:
    rows = [["labels", "recommended", "test", "retention", "best on test", "regret"]]
    return rows + [
        [
            f"{r.budget:,}",
            r.arm,
            f"{100 * r.test:.1f}",
            f"{100 * r.test_retention:.1f}",
            r.test_best,
            f"{100 * r.regret:.1f}",
        ]
        for r in chosen
    ]


def _tables(
    comparison: Comparison, arms: Sequence[Arm], chosen: Sequence[Recommendation]
) -> dict[str, TableRows]:
    """Tables by their headings."""
    return {
        "Recommended": _choices(chosen),
        "Pretraining and fine-tuning, measured": _article(comparison, arms, chosen),
        "Everything measured, in % (* recommended)": results_table(arms, chosen),
        "What it took here, in mean over seeds": _costs(arms),
    }


def _markdown(
    comparison: Comparison,
    arms: Sequence[Arm],
    chosen: Sequence[Recommendation],
    said: Sequence[str],
) -> str:
    lines = [f"# {inline(comparison.name)}", "", *map(inline, said), ""]
    for title, table in _tables(comparison, arms, chosen).items():
        lines += [f"## {title}", "", _row(table[0]), "|" + "---|" * len(table[0])]
        lines += [*(_row(cells) for cells in table[1:]), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return row(map(inline, cells))


def _page(
    comparison: Comparison,
    arms: Sequence[Arm],
    chosen: Sequence[Recommendation],
    said: Sequence[str],
) -> str:
    metric = default_metric(comparison.evaluate[0], comparison.compare.metric)
    budget = chosen[-1].budget
    last = [arm for arm in arms if arm.budget == budget]
    return render(
        "ptft.compare",
        "report.html",
        title=comparison.name,
        generator=f"ptft {__version__}",
        style="report.css",
        sentences=said,
        charts={
            "Target over labels": label_curves(arms, chosen, metric),
            f"Target and retention at {budget:,} labels": retention_plane(
                last, comparison.compare.retention, metric
            ),
        },
        costs=cost_bars(last),
        budget=f"{budget:,}",
        tables=_tables(comparison, arms, chosen),
    )


def _per_class(comparison: Comparison) -> bool:
    return isinstance(comparison.objective, ClassifyObjective)
