"""Models beside each other: the page says what the JSON says, and the JSON what each measures."""

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ptft
from ptft.api import measure_beside
from ptft.beside import MeasuredModel, measured_model, write_beside
from ptft.cli.main import app
from ptft.errors import UsageError
from ptft.export import export_model
from ptft.mix import mix
from ptft.model_source import ModelFolder
from ptft.recipe import Recipe
from ptft.report.charts import figure_text
from ptft.report.neighbours.record import Neighbours
from ptft.runs.folder import read_run
from tests.support.pages import Read
from tests.support.runs import recipe, run

EVALUATE = [
    {"kind": "retrieval", "name": "own", "split": "test", "ks": [1]},
    {
        "kind": "retrieval",
        "name": "other",
        "ks": [1],
        "data": {"kind": "scenes", "style": "line", "size": 32, "val": 24},
    },
]
ITEM = [{"kind": "retrieval", "data": {"kind": "scenes"}}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start, a run from it, their mix, and the run's model folder."""
    folder = tmp_path_factory.mktemp("beside")
    run(folder / "start", evaluate=EVALUATE, run__neighbours=False)
    start = {"model": None, "init": {"from": str(folder / "start")}}
    run(folder / "tuned", evaluate=[], run__neighbours=False, **start)
    mix([str(folder / "tuned")], folder / "mixed", base=str(folder / "start"), alphas=[0.25])
    export_model(folder / "tuned", folder / "model", name="exported", precisions=(), measure=False)
    return folder


@pytest.fixture(scope="module")
def measured(made: Path) -> tuple[dict[str, Any], Read]:
    names = [str(made / name) for name in ("start", "tuned", "mixed", "model")]
    words = ["evaluate", names[0], *(w for name in names[1:] for w in ("--beside", name))]
    out = made / "figures.json"
    done = CliRunner().invoke(app, [*words, "--page", str(made / "page.html"), "-o", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads(out.read_text())
    assert list(found) == names
    return found, Read((made / "page.html").read_text(encoding="utf-8"))


def test_each_model_has_the_figures_that_it_has_alone(
    made: Path, measured: tuple[dict[str, Any], Read]
) -> None:
    found, _ = measured
    for name in ("start", "mixed"):
        figures = ptft.evaluate(made / name, made / "start" / "recipe.yaml")
        assert found[str(made / name)] == figures
    reads = [read["by"] for read in read_run(made / "tuned").test_reads]
    assert reads[0] == "ptft evaluate"  # of a run that measured nothing itself


def test_the_page_says_what_was_measured_and_where_it_came_from(
    made: Path, measured: tuple[dict[str, Any], Read]
) -> None:
    found, shown = measured
    start, tuned, *_ = found.values()
    for figures in found.values():
        for item in ("own", "other"):
            assert figure_text(True, figures[item]["i2t_recall@1"]) in shown.words
    for item in ("own", "other"):
        was, now = (figures[item]["i2t_recall@1"] for figures in (start, tuned))
        change = (
            f"keeps {figure_text(True, now / was)}" if now < was else f"{100 * (now - was):+.1f}"
        )
        assert change in shown.words
    titles = [text for tag, text in shown.texts if tag == "h3"]
    assert titles == ["own", "other", "start", "tuned", "mixed", "exported"]
    record, info = (
        read_run(made / "tuned"),
        json.loads((made / "model/ptft.json").read_text()),
    )
    for text in (record.recipe_digest, record.weights_digest, info["digest"], "25% tiny"):
        assert str(text) in shown.words
    assert "PTFT_MODEL=model bentoml serve serving.service:Ptft" in shown.words
    assert str(made) not in shown.source
    bars = [float(bar["height"] or 0) for bar in shown.all("rect")]
    assert len(bars) == 2 * len(found)
    heights = [max(1.0, 168 * found[name]["own"]["i2t_recall@1"]) for name in found]
    assert bars[::2] == pytest.approx(heights, abs=0.06)


def test_every_model_is_asked_the_same(measured: tuple[dict[str, Any], Read]) -> None:
    _, shown = measured
    asked = [text for tag, text in shown.texts if tag == "h4"]
    assert len(asked) == 2 * 2
    stages = [text for tag, text in shown.texts if text in ("start", "tuned", "mixed", "exported")]
    assert stages.count("exported") >= len(asked)
    assert "scenes, test: 16 of 16 pictures" in shown.words
    assert "scenes, val: 24 of 24 pictures" in shown.words


def test_the_page_stands_alone(measured: tuple[dict[str, Any], Read]) -> None:
    _, shown = measured
    for _, attributes in shown.found:
        assert not [key for key in attributes if key.startswith("on") or key == "style"]
        assert "href" not in attributes
        assert (attributes.get("src") or "data:").startswith("data:")
    assert "url(" not in shown.source
    (policy,) = (m["content"] for m in shown.all("meta") if "http-equiv" in m)
    (style,) = (data for where, data in shown.texts if where == "style")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"


def test_what_takes_a_model_on(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, command in (("tuned", "ptft export tuned"), ("model", "PTFT_MODEL=model bentoml")):
        assert measured_model(made / name, {}, {}).command.startswith(command)
    pulled = ModelFolder(made / "model", "org/repo@v1")
    monkeypatch.setattr("ptft.beside.measured.fetch_source", lambda source: pulled)
    found = measured_model("org/repo@v1", {}, {})
    assert (found.name, found.command) == ("org/repo@v1", "ptft pull org/repo@v1 models/mine")


def plain(**changes: Any) -> Recipe:
    return recipe(Path("unused"), evaluate=ITEM, **changes)


def one(name: str, value: float) -> MeasuredModel:
    return MeasuredModel(name, f"runs/{name}", {"retrieval": {"i2t_recall@1": value, "images": 9}})


def test_what_a_model_keeps_and_gains_is_of_the_first(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_beside(page, plain(), [one("start", 0.8), one("worse", 0.2), one("better", 0.9)])
    said = [text.strip() for tag, text in Read(page.read_text()).texts if tag == "li"]
    assert [text for text in said if text][:2] == [
        "worse: keeps 25.0\u202f% of retrieval",
        "better: +10.0 points on retrieval",
    ]
    write_beside(page, plain(), [one("start", 0.0), one("same", 0.0)])
    assert "same: +0.0 points on retrieval" in Read(page.read_text()).words


def test_names_that_are_equal_are_told_apart_and_nothing_breaks_out(tmp_path: Path) -> None:
    page, evil = tmp_path / "page.html", "<script>alert(1)</script>"
    twins = [one("tuned", 0.5), replace(one("tuned", 0.6), place="runs/other"), one(evil, 0.5)]
    neighbours = {"retrieval": Neighbours(reason=evil)}
    write_beside(page, plain(), [*twins, one(evil, 0.4)], neighbours)
    shown = Read(page.read_text())
    names = [text for tag, text in shown.texts if tag == "h3"][1:]
    assert names == ["runs/tuned", "runs/other", f"runs/{evil} (3)", f"runs/{evil} (4)"]
    assert not shown.all("script")
    assert f"Not shown: {evil}." in shown.words


def test_use(made: Path, tmp_path: Path) -> None:
    start = str(made / "start")
    with pytest.raises(UsageError, match=r"--beside: .* is named twice"):
        measure_beside([start, start], None, [])
    with pytest.raises(UsageError, match=r"--page: .* no such folder"):
        measure_beside([start], None, [], page=tmp_path / "none" / "page.html")
