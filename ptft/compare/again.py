"""A finished comparison looked at again: why it chose what it did, and several beside each other.

Nothing is trained, and no data is opened: all is read from the cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles
from ptft.compare.page import Choices, choices_explained, choose, write_report
from ptft.compare.recommended import RECOMMENDED, write_recommended
from ptft.compare.results import Cells
from ptft.compare.sentences import gain_of
from ptft.compare.tables import told_name
from ptft.errors import PtftError, UsageError, suggest
from ptft.files.atomic import write_atomic
from ptft.pages.markdown import inline, row
from ptft.recipe import Comparison
from ptft.recipe.load import dump_recipe, load_comparison
from ptft.speech import warn

__all__ = ["explain_again", "summarise"]

_RULE = (
    "confidence",
    "margin",
    "retention",
    "retention_probability",
)  # keys of the choice alone, once cells are there


@dataclass(frozen=True)
class _Finished:
    comparison: Comparison
    folder: Path
    found: Choices
    left: int
    other_rule: bool


def explain_again(source: str | Path, overrides: Sequence[str] = ()) -> str:
    """Choose again among the cells of a comparison, write its report anew, and say as Markdown what
    spoke for and against every arm.

    Args:
        source: the comparison's folder, or its recipe.
        overrides: ``compare.confidence``, ``compare.margin``, ``compare.retention`` and
            ``compare.retention_probability`` decide the choice; other keys have to be those of the
            cells.

    Raises:
        UsageError: there is no cell yet, or other keys are given.
    """
    finished = _read(source, overrides)
    comparison, folder, found = finished.comparison, finished.folder, finished.found
    write_report(comparison, found.cells, folder, left=finished.left)
    if finished.other_rule:  # whoever reads the folder next is to find one choice
        write_atomic(folder / RunFiles.RECIPE, dump_recipe(comparison))
        try:
            write_recommended(comparison, found.arms, found.chosen[-1], folder)
        except PtftError as error:
            (folder / RECOMMENDED).unlink(missing_ok=True)
            warn(f"{folder / RECOMMENDED}: gone, it was of another choice; not written: {error}")
    return choices_explained(comparison, found)


def summarise(sources: Sequence[str | Path]) -> str:
    """Tabulate several comparisons as Markdown: a row for each domain and budget.

    Raises:
        UsageError: one of them has no cell yet.
    """
    head = ["domain", "folder", "labels", "start", "recommended", "test", "gain", "seeds"]
    rows = [[*head, "retention", "CPU-s"]]
    for source in sources:
        one = _read(source, ())
        section = one.comparison.compare
        for choice in one.found.chosen:
            arms = {a.name: a for a in one.found.arms if a.budget == choice.budget}
            arm = arms[choice.arm]
            start = next(a for a in arms.values() if a.kind == "zero_shot")
            gain, low, high = (100 * v for v in gain_of(arm, start, section.confidence))
            sure = f"{100 * section.confidence:g} %: {low:z.1f} to {high:z.1f}"
            kept = f"{100 * arm.test_retention:.1f}" if section.retain else "not asked"
            rows.append(
                [
                    one.comparison.name,
                    str(one.folder),
                    f"{choice.budget:,}",
                    f"{100 * start.test:.1f}",
                    told_name(arm),
                    f"{100 * arm.test:.1f}",
                    f"{gain:+z.1f} ({sure})",
                    f"{arm.seeds}",
                    kept,
                    f"{arm.cpu_seconds:,.1f}",
                ]
            )
    lines = [row(map(inline, cells)) for cells in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _read(source: str | Path, overrides: Sequence[str]) -> _Finished:
    """The comparison that lies in a folder, or in the folder that a recipe names."""
    path = Path(source)
    given = None
    if path.is_dir():
        folder = path
    else:
        given = load_comparison(source, overrides)
        folder = Path(given.run.dir) if given.run.dir else Path("runs") / given.name
    recipe = folder / RunFiles.RECIPE
    if not recipe.is_file():
        raise UsageError(f"{folder}: no comparison is there; ptft compare begins one")
    if not (folder / "cells").is_dir():
        raise UsageError(f"{folder}: no cell of a comparison is there; ptft compare makes them")
    recorded = load_comparison(recipe)
    given = given or load_comparison(recipe, overrides)
    _refuse_others(overrides, given, recorded)
    rule = {key: getattr(given.compare, key) for key in _RULE}
    compare = recorded.compare.model_copy(update=rule)
    comparison = recorded.model_copy(update={"compare": compare})
    cells = Cells(folder, recorded)
    found = choose(comparison, cells.all())
    if not found.chosen:
        raise UsageError(f"{folder}: no budget with its starting model is finished yet")
    return _Finished(comparison, folder, found, cells.missing, compare != recorded.compare)


def _refuse_others(overrides: Sequence[str], given: Comparison, recorded: Comparison) -> None:
    """Refuse keys that would need other cells than there are."""
    allowed = [f"compare.{key}" for key in _RULE]
    cells = recorded.model_dump(mode="json", by_alias=True)
    asked = given.model_dump(mode="json", by_alias=True)
    for override in overrides:
        key = override.partition("=")[0]
        if key in (*allowed, "run.dir") or _at(asked, key) == _at(cells, key):
            continue
        raise UsageError(
            f"--again: {override}: the cells are of {_at(cells, key)!r}; {suggest(key, allowed)}"
        )


def _at(values: Any, key: str) -> Any:
    """What stands at a dotted key of plain values; None where nothing does."""
    for part in key.split("."):
        if isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            values = values.get(part) if isinstance(values, dict) else None
    return values
