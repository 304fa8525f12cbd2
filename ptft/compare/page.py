"""The report of a comparison: JSON for programs, Markdown and one HTML file for people."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ptft import __version__
from ptft.artifact import write_atomic, write_json
from ptft.compare.class_view import ClassView, class_view
from ptft.compare.gathered import ANSWERS, Arm, gather
from ptft.compare.metric import default_metric
from ptft.compare.plots import cost_bars, label_curves, retention_plane
from ptft.compare.queries import read_queries
from ptft.compare.recommend import Recommendation, recommend
from ptft.compare.results import Cell
from ptft.compare.selected import kept_sets
from ptft.compare.sentences import article, passed_over, sentences, unit, worth_told
from ptft.compare.tables import (
    TableRows,
    choices_table,
    costs_table,
    results_table,
    verdicts_table,
)
from ptft.compare.unlabelled_worth import unlabelled_worth
from ptft.data import SampleSet
from ptft.pages.document import render
from ptft.pages.markdown import inline, row
from ptft.recipe import Comparison

__all__ = ["Choices", "choices_explained", "choose", "write_report"]

_ARTICLE = "Pretraining and fine-tuning, measured"


@dataclass(frozen=True)
class Choices:
    """What a comparison found.

    Attributes:
        cells: all that are finished.
        arms: their means over seeds.
        chosen: a recommendation for each budget whose start is finished.
    """

    cells: Sequence[Cell]
    arms: Sequence[Arm]
    chosen: Sequence[Recommendation]


def choose(comparison: Comparison, cells: Sequence[Cell]) -> Choices:
    """Recommend an arm at every budget."""
    section = comparison.compare
    arms = gather(cells, confidence=section.confidence)
    chosen = recommend(
        arms,
        retention=section.retention,
        probability=section.retention_probability,
        confidence=section.confidence,
        margin=section.margin,
        sets=kept_sets(comparison),
    )
    return Choices(cells, arms, chosen)


def write_report(
    comparison: Comparison,
    cells: Sequence[Cell],
    folder: Path,
    *,
    left: int,
    remarks: Sequence[str] = (),
    test: SampleSet | None = None,
) -> None:
    """Write ``results.json``, ``report.md`` and ``report.html`` from finished cells.

    Args:
        left: cells that are missing; the report says so.
        remarks: sentences on what to mind: trainings that the recipe's own length cuts short, say.
        test: the target's, whose pictures are shown; None: none are.
    """
    found = choose(comparison, cells)
    write_json(folder / "results.json", _values(comparison, found, left))
    if not found.chosen:
        return
    said = [
        *sentences(comparison, found.arms, found.chosen),
        *worth_told(comparison, found.arms),
        *passed_over(cells),
        *remarks,
    ]
    if left:
        said.append(f"Not finished: {left} cells are missing; run the same command again.")
    tables = _tables(comparison, found)
    classes = class_view(cells, found.chosen[-1], read_queries(folder), test)
    write_atomic(folder / "report.md", _markdown(comparison, said, tables, classes))
    write_atomic(folder / "report.html", _page(comparison, found, said, tables, classes))


def choices_explained(comparison: Comparison, found: Choices) -> str:
    """Say as Markdown, for each budget, what spoke for and against every arm on validation."""
    parts = []
    for choice in found.chosen:
        heading = f"## {choice.budget:,} {unit(comparison)}: {inline(choice.arm)}"
        table = verdicts_table(comparison, found.arms, choice)
        parts.append("\n".join([heading, "", *_lines(table)]))
    return "\n\n".join(parts)


def _values(comparison: Comparison, found: Choices, left: int) -> dict[str, object]:
    plain = [
        {key: value for key, value in vars(arm).items() if key not in ANSWERS} for arm in found.arms
    ]
    return {
        "name": comparison.name,
        "metric": default_metric(
            comparison.evaluate[0], comparison.data, comparison.compare.metric
        ),
        "retention": comparison.compare.retention,
        "arms": plain,
        "recommendations": [asdict(one) for one in found.chosen],
        "unlabelled": [
            asdict(one)
            for one in unlabelled_worth(found.arms, confidence=comparison.compare.confidence)
        ],
        "cells_left": left,
    }


def _tables(comparison: Comparison, found: Choices) -> dict[str, TableRows]:
    """Tables by their headings; what a second run repeats comes first."""
    arms, chosen = found.arms, found.chosen
    return {
        "Recommended, in %": choices_table(comparison, arms, chosen),
        "Everything measured, in % (* recommended)": results_table(comparison, arms, chosen),
        "What it took here, in mean over seeds": costs_table(arms),
        _ARTICLE: article(comparison, arms, chosen),
    }


def _markdown(
    comparison: Comparison,
    said: Sequence[str],
    tables: dict[str, TableRows],
    classes: ClassView | None,
) -> str:
    lines = [f"# {inline(comparison.name)}", "", *map(inline, said), ""]
    for title, table in tables.items():
        lines += [f"## {title}", "", *_lines(table), ""]
    if classes is not None:
        lines += [f"## By class at {classes.budget:,} {unit(comparison)}, in %", ""]
        lines += [f"- {inline(sentence)}" for sentence in classes.said]
        note = f"{classes.note[:1].upper()}{classes.note[1:]}."
        lines += ["", *([note, ""] if classes.note else []), *_lines(classes.table), ""]
        pairs = [["shows", "is taken for", "times"]]
        pairs += [[p.shown, p.said, f"{p.count} of {p.total}"] for p in classes.pairs]
        lines += [f"What {inline(classes.arm)} takes for what:", "", *_lines(pairs), ""]
    return "\n".join(lines)


def _lines(table: TableRows) -> list[str]:
    return [_row(table[0]), "|" + "---|" * len(table[0]), *(_row(cells) for cells in table[1:])]


def _row(cells: Sequence[str]) -> str:
    return row(map(inline, cells))


def _page(
    comparison: Comparison,
    found: Choices,
    said: Sequence[str],
    tables: dict[str, TableRows],
    classes: ClassView | None,
) -> str:
    section = comparison.compare
    metric = default_metric(comparison.evaluate[0], comparison.data, section.metric)
    last = found.chosen[-1]
    own = [arm for arm in found.arms if arm.budget == last.budget]
    charts = [label_curves(found.arms, found.chosen, metric, unit(comparison))]
    if section.retain:
        charts.append(retention_plane(own, last, section.retention, metric))
    return render(
        "ptft.compare",
        "report.html",
        title=comparison.name,
        generator=f"ptft {__version__}",
        style="report.css",
        shared=["classes.css"],
        sentences=said,
        charts=charts,
        costs=cost_bars(own),
        budget=f"{last.budget:,} {unit(comparison)}",
        article=(_ARTICLE, tables[_ARTICLE]),
        tables={name: table for name, table in tables.items() if name != _ARTICLE},
        classes=classes,
    )
