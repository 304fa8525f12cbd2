"""``page.html``: a run for people, in one file that asks nothing of any network.

It is made from what lies in the run folder alone. Everything that comes from data or a recipe is
escaped, and no script runs but its own (:mod:`ptft.pages.document`). Pages are passed on, so that
folders of the machine are left out (:mod:`ptft.recipe.publication`).
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ptft.artifact import RunFiles, write_atomic
from ptft.pages.chart import Chart
from ptft.pages.document import render
from ptft.recipe.publication import public_text, published_values
from ptft.recipe.yaml_text import dump_values, read_yaml
from ptft.report.boxes.charts import mistake_bars, precision_chart
from ptft.report.boxes.record import read_boxes
from ptft.report.charts import figure_text, run_chart
from ptft.report.curves import Series, group_panels, is_share, read_series
from ptft.report.neighbours.record import Answer, Neighbours, read_neighbours
from ptft.report.throughput import duration
from ptft.runs.folder import RunRecord, RunStatus, read_run

__all__ = ["write_page"]

_NAMED = 20  # skipped samples that are named
_STAGES = ("before", "after")
_FIRST = ("top1", "map")  # of an evaluation without directions
_WORDS = {
    RunStatus.RUNNING: "running",
    RunStatus.STOPPED: "stopped; --resume goes on",
    RunStatus.FINISHED: "finished",
    RunStatus.FAILED: "failed",
}


def write_page(folder: Path, *, left: float | None = None) -> Path:
    """Write the page of a run anew.

    Args:
        left: seconds that the run still takes, where that is known.

    Returns:
        Where it lies.

    Raises:
        ArtifactError: the folder holds no run.
    """
    record, series = read_run(folder), read_series(folder)
    nearest = read_neighbours(folder)
    logged = max((points[-1][0] for points in series.values()), default=0)
    seen = min(max(record.seen, logged), record.total)
    values = read_yaml((folder / RunFiles.RECIPE).read_text(encoding="utf-8"))
    recipe, without = published_values(values)
    text = render(
        "ptft.report.page",
        "page.html",
        title=f"{record.name} \u00b7 {record.status}",
        generator=f"ptft {record.versions.get('ptft', '')}",
        style="page.css",
        shared=["boxes.css", "nearest.css"],
        script="page.js",
        record=record,
        status=_WORDS.get(record.status, record.status),
        runs=record.status == RunStatus.RUNNING,
        error=public_text(record.error),
        notes=[public_text(note) for note in record.notes],
        seen=seen,
        facts=_facts(record, series, seen, left),
        now=datetime.now(UTC).isoformat(timespec="seconds"),
        charts=_charts(series),
        tables=_tables(series),
        found={
            name: (one, precision_chart(one), mistake_bars(one))
            for name, one in read_boxes(folder).items()
        },
        nearest=nearest,
        searches={} if nearest is None else _searches(nearest),
        skipped=list(itertools.islice(_skipped(folder, record), _NAMED)),
        skipped_file=RunFiles.SKIPPED,
        faults=", ".join(f"{count:,} {fault}" for fault, count in record.faults.items()),
        recipe=dump_values(recipe),
        recipe_file=RunFiles.RECIPE,
        without=", ".join(without),
        origins={
            "recipe digest": record.recipe_digest,
            "weights digest": record.weights_digest or "not yet",
            **record.versions,
        },
    )
    path = folder / RunFiles.PAGE
    write_atomic(path, text)
    return path


def _facts(record: RunRecord, series: Series, seen: int, left: float | None) -> dict[str, str]:
    speed = series.get("samples_per_second")
    facts = {
        "samples": f"{seen:,} of {record.total:,} ({seen / max(1, record.total):.0%})",
        "steps": f"{record.step:,}",
        "trained for": duration(record.seconds),
    }
    if speed:
        facts["speed"] = f"{figure_text(False, speed[-1][1])} samples/s"
    if left is not None and record.status == RunStatus.RUNNING:
        facts["left"] = duration(left)
    facts["on"] = f"{record.device}, {record.precision}"
    if record.skipped:
        facts["skipped samples"] = f"{record.skipped:,}"
    return facts


def _charts(series: Series) -> list[Chart]:
    """Curves; what was measured once is none, and stands in the tables."""
    end = max((points[-1][0] for points in series.values()), default=0)
    return [
        run_chart(panel, series, end=end)
        for panel in group_panels(series)
        if not panel.evaluation or any(len(series[name]) > 1 for name in panel.names)
    ]


@dataclass(frozen=True)
class _FigureTable:
    """The last figures of an evaluation.

    Attributes:
        name: of the evaluation.
        seen: samples when they were measured.
        both: whether there are figures of both directions, side by side.
        rows: whether people look at it first, the figure's name, and its values.
    """

    name: str
    seen: int
    both: bool
    rows: list[tuple[bool, str, list[str]]]


def _tables(series: Series) -> list[_FigureTable]:
    evaluations: dict[str, dict[str, tuple[int, float]]] = {}
    for name, points in series.items():
        group, slash, last = name.rpartition("/")
        if slash:
            evaluations.setdefault(group, {})[last] = points[-1]
    return [_table(name, figures) for name, figures in evaluations.items()]


def _table(name: str, figures: dict[str, tuple[int, float]]) -> _FigureTable:
    """Figures of both directions side by side, then the others."""
    values = {key: value for key, (_, value) in figures.items()}
    both = [key.removeprefix("i2t_") for key in values if key.startswith("i2t_")]
    rows = []
    for key in both:
        pair = [_value(key, values.get(f"{way}_{key}")) for way in ("i2t", "t2i")]
        rows.append(("recall" in key, key.replace("_", " "), pair))
    for key, value in values.items():
        if not key.startswith(("i2t_", "t2i_")):
            rows.append((key in _FIRST, key.replace("_", " "), [_value(key, value)]))
    return _FigureTable(name, max(seen for seen, _ in figures.values()), bool(both), rows)


def _value(key: str, value: float | None) -> str:
    if value is None:
        return "\u2013"
    return f"{value:,}" if isinstance(value, int) else figure_text(is_share(key), value)


Query = tuple[Answer, dict[str, Answer | None]]
"""One of the answers to it, and the answer before and after training."""


def _searches(nearest: Neighbours) -> dict[str, list[Query]]:
    """What was asked, by a heading for each way."""
    text = "class" if nearest.texts == "classes" else "caption"
    right = f" (right: {nearest.right})" if nearest.right else ""
    headings = {
        "text_to_picture": f"Pictures for a {text}",
        "picture_to_text": f"{nearest.texts.capitalize()} for a picture",
        "picture_to_picture": f"Pictures like a picture{right}",
    }
    answers = {stage: {_key(one): one for one in getattr(nearest, stage)} for stage in _STAGES}
    searches: dict[str, list[Query]] = {}
    for key in dict.fromkeys(itertools.chain(*answers.values())):
        stages = {stage: answers[stage].get(key) for stage in _STAGES}
        asked = next(answer for answer in stages.values() if answer is not None)
        searches.setdefault(key[0], []).append((asked, stages))
    return {headings[kind]: searches[kind] for kind in headings if kind in searches}


def _key(answer: Answer) -> tuple[str, str]:
    return answer.kind, answer.picture or answer.text or ""


def _skipped(folder: Path, record: RunRecord) -> Iterator[tuple[str, str]]:
    """Name and reason of the samples that could not be read; a line that a kill cut is left out."""
    path = folder / RunFiles.SKIPPED
    if not record.skipped or not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                values = json.loads(line)
                name, why = str(values["name"]), f"{values['fault']}: {values['reason']}"
            except (ValueError, KeyError, TypeError):
                continue
            yield public_text(name), public_text(why)
