"""``page.html``: a run for people, in one file that asks nothing of any network.

It is made from what lies in the run folder alone. Everything that comes from data or a recipe is
escaped (:mod:`ptft.pages.markup`), and no script runs but its own (:mod:`ptft.pages.document`).
Pages are passed on, so that folders of the machine are left out (:mod:`ptft.recipe.publication`).
"""

import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ptft.artifact import RunFiles, write_atomic
from ptft.pages.document import asset, document
from ptft.pages.markup import Markup, element, join
from ptft.recipe.document import read_yaml
from ptft.recipe.publication import public_text, published_values
from ptft.recipe.yaml_text import dump_values
from ptft.report.charts import chart, figure_text
from ptft.report.curves import Series, group_panels, is_share, read_series
from ptft.report.neighbours.record import Answer, Found, Neighbours, read_neighbours
from ptft.report.throughput import duration
from ptft.runs.folder import RunRecord, RunStatus, read_run

__all__ = ["write_page"]

_NAMED = 20  # skipped samples that are named
_STAGES = ("before", "after")
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
    neighbours = read_neighbours(folder)
    text = document(
        f"{record.name} \u00b7 {record.status}",
        _head(record, series, left),
        _curves(series),
        _figures(series),
        None if neighbours is None else _nearest(neighbours),
        _skipped(folder, record),
        _recipe(folder, record),
        style=asset("ptft.report.page", "page.css"),
        script=asset("ptft.report.page", "page.js"),
        generator=f"ptft {record.versions.get('ptft', '')}",
    )
    path = folder / RunFiles.PAGE
    write_atomic(path, text)
    return path


def _head(record: RunRecord, series: Series, left: float | None) -> Markup:
    logged = max((points[-1][0] for points in series.values()), default=0)
    seen = min(max(record.seen, logged), record.total)
    speed = series.get("samples_per_second")
    facts = {
        "samples": f"{seen:,} of {record.total:,} ({seen / max(1, record.total):.0%})",
        "steps": f"{record.step:,}",
        "trained for": duration(record.seconds),
        "speed": f"{figure_text(False, speed[-1][1])} samples/s" if speed else None,
        "left": duration(left) if left is not None and _runs(record) else None,
        "on": f"{record.device}, {record.precision}",
        "skipped samples": f"{record.skipped:,}" if record.skipped else None,
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return join(
        (
            element(
                "header",
                element("h1", record.name),
                element(
                    "span",
                    _WORDS.get(record.status, record.status),
                    class_=f"status {record.status}",
                ),
            ),
            element("p", public_text(record.error), class_="error") if record.error else None,
            element("progress", max=max(1, record.total), value=seen, aria_label="samples seen"),
            element(
                "dl",
                *(
                    element("div", element("dt", name), element("dd", value))
                    for name, value in facts.items()
                    if value is not None
                ),
            ),
            element(
                "ul", *(element("li", public_text(note)) for note in record.notes), class_="notes"
            ),
            element(
                "p",
                "Started ",
                _time(record.started),
                "; this page was written ",
                _time(now, age=_runs(record)),
                "; each checkpoint and evaluation writes it anew." if _runs(record) else ".",
                class_="faint",
            ),
        )
    )


def _runs(record: RunRecord) -> bool:
    return record.status == RunStatus.RUNNING


def _time(when: str, *, age: bool = False) -> Markup:
    return element("time", f"{when[:16].replace('T', ' ')} UTC", datetime=when, data_age=age)


def _curves(series: Series) -> Markup | None:
    # what was measured once is no curve; the table below has it
    shown = [
        panel
        for panel in group_panels(series)
        if not panel.evaluation or any(len(series[name]) > 1 for name in panel.names)
    ]
    if not shown:
        return None
    end = max(points[-1][0] for points in series.values())
    charts = [chart(panel, series, end=end) for panel in shown]
    return element("section", element("h2", "Curves"), element("div", *charts, class_="charts"))


def _figures(series: Series) -> Markup | None:
    """The last figures of each evaluation."""
    evaluations: dict[str, dict[str, tuple[int, float]]] = {}
    for name, points in series.items():
        group, slash, last = name.rpartition("/")
        if slash:
            evaluations.setdefault(group, {})[last] = points[-1]
    if not evaluations:
        return None
    tables = [_table(name, figures) for name, figures in evaluations.items()]
    return element("section", element("h2", "Evaluation"), element("div", *tables, class_="tables"))


def _table(name: str, figures: dict[str, tuple[int, float]]) -> Markup:
    """Figures of both directions side by side, then the others."""
    seen = max(place for place, _ in figures.values())
    caption = element(
        "caption", name, " ", element("span", f"after {seen:,} samples", class_="faint")
    )
    values = {key: value for key, (_, value) in figures.items()}
    both = [key.removeprefix("i2t_") for key in values if key.startswith("i2t_")]
    rows: list[Markup] = []
    if both:
        rows.append(_row("th", "", "image to text", "text to image"))
    for key in both:
        pair = [_value(key, values.get(f"{way}_{key}")) for way in ("i2t", "t2i")]
        rows.append(_row("td", key.replace("_", " "), *pair, main="recall" in key))
    for key, value in values.items():
        if not key.startswith(("i2t_", "t2i_")):
            rows.append(_row("td", key.replace("_", " "), _value(key, value), main=key == "top1"))
    return element("table", caption, element("tbody", *rows))


def _row(cell: str, first: str, *others: str, main: bool = False) -> Markup:
    scope = "col" if cell == "th" else None
    cells = [element(cell, text, class_="main" if main else None, scope=scope) for text in others]
    head = element("th", first, scope="row") if first else element("td")
    return element("tr", head, *cells)


def _value(key: str, value: float | None) -> str:
    if value is None:
        return "\u2013"
    return f"{value:,}" if isinstance(value, int) else figure_text(is_share(key), value)


def _nearest(neighbours: Neighbours) -> Markup:
    title = element("h2", "What the model finds nearest")
    if neighbours.reason:
        return element("section", title, element("p", f"Not shown: {neighbours.reason}."))
    text = "class" if neighbours.texts == "classes" else "caption"
    kinds = {
        "text_to_picture": f"Pictures for a {text}",
        "picture_to_text": f"{neighbours.texts.capitalize()} for a picture",
        "picture_to_picture": "Pictures like a picture",
    }
    answers = {stage: {_key(one): one for one in getattr(neighbours, stage)} for stage in _STAGES}
    keys = list(dict.fromkeys(itertools.chain(*answers.values())))
    parts: list[Markup] = []
    for kind, heading in kinds.items():
        asked = [key for key in keys if key[0] == kind]
        if not asked:
            continue
        if kind == "picture_to_picture":
            heading += f" (right: {neighbours.right})" if neighbours.right else ""
        parts.append(element("h3", heading))
        parts += [
            _query(neighbours, {stage: answers[stage].get(key) for stage in _STAGES})
            for key in asked
        ]
    intro = (
        f"Nearest first, among {neighbours.source}, drawn by the seed. Right ones carry a \u2713."
    )
    return element("section", title, element("p", intro, class_="faint"), *parts)


def _key(answer: Answer) -> tuple[str, str]:
    return answer.kind, answer.picture or answer.text or ""


def _query(neighbours: Neighbours, stages: dict[str, Answer | None]) -> Markup:
    asked = next(answer for answer in stages.values() if answer is not None)
    strips = [_stage(neighbours, stage, answer) for stage, answer in stages.items()]
    both = element("div", *strips, class_="stages")
    if asked.text is not None:
        return element("article", element("h4", asked.text), both, class_="query by-text")
    picture = neighbours.pictures[asked.picture or ""]
    image = element("img", src=picture.image, alt=f"asked: {picture.says or picture.name}")
    return element(
        "article",
        element("div", image, class_="asked"),
        element("div", element("p", picture.says or picture.name, class_="faint"), both),
        class_="query by-picture",
    )


def _stage(neighbours: Neighbours, stage: str, answer: Answer | None) -> Markup:
    label = element("span", stage, class_="faint")
    if answer is None:
        missing = "not yet" if stage == "after" else "not recorded"
        return element("div", label, element("span", missing, class_="faint"), class_="stage")
    pictures = answer.kind != "picture_to_text"
    entry = _picture if pictures else _text
    found = element(
        "ol",
        *(entry(neighbours, one) for one in answer.found),
        class_="strip" if pictures else "answers",
    )
    return element("div", label, found, _rank(answer), class_="stage")


def _picture(neighbours: Neighbours, found: Found) -> Markup:
    picture = neighbours.pictures[found.picture or ""]
    words = picture.says or picture.name
    image = element("img", src=picture.image, alt=words, title=words)
    if not found.right:
        return element("li", image)
    mark = element("span", "\u2713", element("span", " right", class_="hidden"), class_="mark")
    return element("li", image, mark, class_="right")


def _text(neighbours: Neighbours, found: Found) -> Markup:
    words = element("span", found.text or "")
    if not found.right:
        return element("li", words)
    return element("li", words, element("span", " (right)", class_="hidden"), class_="right")


def _rank(answer: Answer) -> Markup | None:
    """Where the first right one stands, where it is not among those that are shown."""
    if answer.rank is None or answer.rank <= len(answer.found):
        return None
    return element("span", f"first right one: {answer.rank:,} of {answer.among:,}", class_="rank")


def _skipped(folder: Path, record: RunRecord) -> Markup | None:
    path = folder / RunFiles.SKIPPED
    if not record.skipped or not path.is_file():
        return None
    with path.open(encoding="utf-8") as lines:
        rows = [_skipped_row(line) for line in itertools.islice(lines, _NAMED)]
    heads = (element("th", name, scope="col") for name in ("sample", "why"))
    table = element("table", element("tbody", element("tr", *heads), *rows), class_="words")
    more = record.skipped - len(rows)
    rest = element("p", f"and {more:,} more in {RunFiles.SKIPPED}") if more > 0 else None
    title = element("h2", "Samples that could not be read")
    kinds = ", ".join(f"{count:,} {fault}" for fault, count in record.faults.items())
    return element("section", title, element("p", kinds) if kinds else None, table, rest)


def _skipped_row(line: str) -> Markup | None:
    try:
        values = json.loads(line)
        name, why = str(values["name"]), f"{values['fault']}: {values['reason']}"
    except (ValueError, KeyError, TypeError):
        return None  # a line that a kill cut
    return element("tr", element("td", public_text(name)), element("td", public_text(why)))


def _recipe(folder: Path, record: RunRecord) -> Markup:
    values = read_yaml((folder / RunFiles.RECIPE).read_text(encoding="utf-8"))
    shown, without = published_values(values)
    note = f"The folders of {', '.join(without)} are in {RunFiles.RECIPE}." if without else None
    facts = {
        "recipe digest": record.recipe_digest,
        "weights digest": record.weights_digest or "not yet",
        **record.versions,
    }
    return element(
        "section",
        element("h2", "What it came from"),
        element(
            "details",
            element("summary", "Recipe, resolved"),
            element("p", note, class_="faint") if note else None,
            element("pre", dump_values(shown)),
        ),
        element("details", element("summary", "Digests and versions"), _facts(list(facts.items()))),
    )


def _facts(facts: Sequence[tuple[str, str]]) -> Markup:
    rows = (
        element("tr", element("th", name, scope="row"), element("td", element("code", value)))
        for name, value in facts
    )
    return element("table", element("tbody", *rows), class_="words")
