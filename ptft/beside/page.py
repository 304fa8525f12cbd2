"""The page of several models: a chart and a table of what each measures, and what each finds.

The first model is the one that the others are held against: by how much each is better, or what it
keeps of it. The page is passed on as one file, see :mod:`ptft.pages.document`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ptft import __version__
from ptft.artifact import write_atomic
from ptft.beside.measured import MeasuredModel
from ptft.pages.chart import Axis, Chart, HistogramBar, Mark
from ptft.pages.document import render
from ptft.recipe import EvaluateItem, Recipe, metrics_of
from ptft.report.charts import figure_text
from ptft.report.curves import is_share
from ptft.report.neighbours.record import Answer, Neighbours

__all__ = ["write_beside"]

_QUERIES = 2  # that are shown of an evaluation
_SHARES = [(0.0, "0%"), (0.25, "25%"), (0.5, "50%"), (0.75, "75%"), (1.0, "100%")]
_FIRST_COLOUR = 7  # grey: what the others are held against
_OTHER_COLOURS = (1, 0, 2, 3, 4, 5, 6, 8, 9)
_HIGHEST = 0.8  # of a group's width: the rest is air
_GROUP = 90  # units of the drawing that a group of bars and its name take
_WAYS = {"i2t": "image to text", "t2i": "text to image"}


def write_beside(
    path: Path,
    recipe: Recipe,
    models: Sequence[MeasuredModel],
    nearest: Mapping[str, Neighbours] | None = None,
) -> None:
    """Write the page.

    Args:
        recipe: the one whose evaluations measured all of them.
        models: the one that the others are held against first.
        nearest: whose pictures the models' answers name, by the evaluation's name.
    """
    models = _told_apart(models)
    names = [model.name for model in models]
    text = render(
        "ptft.beside",
        "beside.html",
        title=", ".join(names),
        generator=f"ptft {__version__}",
        style="beside.css",
        shared=["nearest.css", "classes.css", "boxes.css"],
        recipe=recipe.name,
        names=names,
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        said=[_sentence(recipe, models[0], model) for model in models[1:]],
        chart=_chart(recipe, models),
        rows=[_row(item, recipe, models) for item in recipe.evaluate],
        tables={item.label: _figures(item.label, models) for item in recipe.evaluate},
        searches=_searches(models, nearest or {}),
        models=models,
    )
    write_atomic(path, text)


def _told_apart(models: Sequence[MeasuredModel]) -> list[MeasuredModel]:
    """Each by a name of its own: what they were read from, where two are called the same."""
    names = [model.name for model in models]
    places = [m.place if names.count(m.name) > 1 else m.name for m in models]
    numbered = [
        f"{place} ({number})" if places.count(place) > 1 else place
        for number, place in enumerate(places, 1)
    ]
    return [replace(model, name=name) for model, name in zip(models, numbered, strict=True)]


def _metric(item: EvaluateItem, recipe: Recipe) -> str:
    return metrics_of(item, recipe.data)[0]


def _metric_text(metric: str) -> str:
    way, _, rest = metric.partition("_")
    return f"{rest}, {_WAYS[way]}" if way in _WAYS else metric


def _chance(item: EvaluateItem, recipe: Recipe, figures: Mapping[str, Any]) -> float | None:
    metric = _metric(item, recipe)
    names = {"map": "map_chance", "top1": "chance"}
    chance = figures.get(names.get(metric, metric.replace("recall", "chance")))
    return None if chance is None else float(chance)


@dataclass(frozen=True)
class _Cell:
    """A figure in the table, and what it is beside the first model's."""

    value: str
    change: str


def _values(item: EvaluateItem, recipe: Recipe, models: Sequence[MeasuredModel]) -> list[float]:
    metric = _metric(item, recipe)
    return [float(model.figures[item.label][metric]) for model in models]


def _row(
    item: EvaluateItem, recipe: Recipe, models: Sequence[MeasuredModel]
) -> tuple[str, str, str, list[_Cell], int]:
    """Name, metric, chance, a cell for each model, and which of them is the best."""
    first, *others = values = _values(item, recipe, models)
    cells = [_Cell(figure_text(True, first), "")]
    cells += [_Cell(figure_text(True, value), _change(first, value)) for value in others]
    chance = _chance(item, recipe, models[0].figures[item.label])
    shown = "\u2013" if chance is None else figure_text(True, chance)
    return item.label, _metric_text(_metric(item, recipe)), shown, cells, values.index(max(values))


def _change(first: float, value: float) -> str:
    if value >= first or first == 0.0:
        return f"{100 * (value - first):+z.1f} points"
    return f"keeps {figure_text(True, value / first)}"


def _sentence(recipe: Recipe, first: MeasuredModel, model: MeasuredModel) -> str:
    """What a model gains and what it keeps, of all evaluations."""
    parts = []
    for item in recipe.evaluate:
        was, now = _values(item, recipe, [first, model])
        change = _change(was, now)
        of = "of " if change.startswith("keeps") else "on "
        parts.append(f"{change} {of}{item.label}")
    return f"{model.name}: {'; '.join(parts)}"


def _chart(recipe: Recipe, models: Sequence[MeasuredModel]) -> Chart:
    """A group of bars for each evaluation, a colour for each model."""
    groups = recipe.evaluate
    width = _HIGHEST / len(models)
    marks, words = [], []
    for place, model in enumerate(models):
        bars = []
        for group, item in enumerate(groups):
            (value,) = _values(item, recipe, [model])
            left = group + (1.0 - _HIGHEST) / 2 + place * width
            said = f"{model.name}, {item.label}: {figure_text(True, value)}"
            bars.append(HistogramBar(left, left + width, value, said))
            words.append(said)
        colour = _OTHER_COLOURS[(place - 1) % len(_OTHER_COLOURS)] if place else _FIRST_COLOUR
        marks.append(Mark(name=model.name, colour=colour, bars=bars))
    ticks = [(group + 0.5, item.label) for group, item in enumerate(groups)]
    metrics = list(dict.fromkeys(_metric_text(_metric(item, recipe)) for item in groups))
    return Chart(
        "; ".join(metrics),
        "; ".join(words),
        Axis(0.0, float(len(groups)), ticks),
        Axis(0.0, 1.0, _SHARES),
        marks,
        width=max(360, _GROUP * len(groups)),
    )


def _figures(name: str, models: Sequence[MeasuredModel]) -> list[tuple[str, list[str]]]:
    """Every number of an evaluation: its name, and a value for each model."""
    figures = [model.figures[name] for model in models]
    keys = dict.fromkeys(key for one in figures for key, value in one.items() if _is_number(value))
    return [(key.replace("_", " "), [_value(key, one.get(key)) for one in figures]) for key in keys]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(key: str, value: float | None) -> str:
    if value is None:
        return "\u2013"
    return f"{value:,}" if isinstance(value, int) else figure_text(is_share(key), value)


_Query = tuple[Answer, dict[str, Answer | None]]
"""One of the answers to it, and each model's."""


def _searches(
    models: Sequence[MeasuredModel], nearest: Mapping[str, Neighbours]
) -> dict[str, tuple[Neighbours, list[_Query]]]:
    """The first queries of each evaluation; where nothing could be asked, the reason alone."""
    found = {}
    for name, neighbours in nearest.items():
        kind = next((answer.kind for answer in models[0].answers.get(name, [])), None)
        queries: list[_Query] = []
        for place in range(_QUERIES):
            answers = {
                model.name: next(iter(_of_kind(model, name, kind)[place : place + 1]), None)
                for model in models
            }
            if (asked := next(filter(None, answers.values()), None)) is not None:
                queries.append((asked, answers))
        found[name] = (neighbours, queries)
    return found


def _of_kind(model: MeasuredModel, name: str, kind: str | None) -> list[Answer]:
    return [answer for answer in model.answers.get(name, []) if answer.kind == kind]
