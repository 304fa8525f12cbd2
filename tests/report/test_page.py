"""The page of a run: what it shows, that it stands alone, and that nothing breaks out of it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from ptft.artifact import RunFiles
from ptft.errors import TrainingError
from ptft.pages.document import environment, render
from ptft.pages.ticks import nice_ticks, tick_text
from ptft.recipe import dump_recipe, load_recipe
from ptft.recipe.publication import public_text, published_recipe
from ptft.report.charts import figure_text, plot_curves, run_chart
from ptft.report.curves import Panel, Series, group_panels, read_series
from ptft.report.page.page import write_page
from ptft.runs.folder import read_run
from tests.support.pages import Read, drawn
from tests.support.run_page import page, pictures
from tests.support.runs import BATCH, STEPS, interrupt, run

EVIL = "<script>alert('x')</script> \"><img src=x onerror=alert(1)> & co"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "run"
    result = run(
        folder,
        evaluate=[{"kind": "retrieval", "name": "held-out"}],
        run__evaluate_every=3,
    )
    assert result.finished
    return folder


def test_the_page_says_what_the_run_folder_says(finished: Path) -> None:
    shown, record = page(finished), read_run(finished)
    for text in (
        "tiny",
        "finished",
        f"{STEPS * BATCH:,} of {STEPS * BATCH:,} (100%)",
        str(record.weights_digest),
        record.recipe_digest,
        record.versions["torch"],
        dump_recipe(published_recipe(load_recipe(finished / RunFiles.RECIPE))[0]),
        "learns: image tower, text tower, logit scale",
    ):
        assert text in shown.words
    figures = json.loads((finished / RunFiles.METRICS).read_text())["held-out"]
    assert f"{figures['t2i_recall@5']:.1%}".replace("%", "\u202f%") in shown.words
    titles = [text for tag, text in shown.texts if tag == "b"]
    training = ["loss", "learning rate", "logit scale", "gradient norm", "samples/s"]
    assert titles == [*training, "held-out"]


def test_the_page_stands_alone_and_lets_nothing_else_run(finished: Path) -> None:
    text = (finished / RunFiles.PAGE).read_text(encoding="utf-8")
    shown = Read(text)
    for attributes in (attributes for _, attributes in shown.found):
        assert not [key for key in attributes if key.startswith("on") or key == "style"]
        assert "href" not in attributes
        assert (attributes.get("src") or "data:").startswith("data:")
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = (m["content"] for m in shown.all("meta") if "http-equiv" in m)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        (inside,) = (data for where, data in shown.texts if where == tag)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert all(image["alt"] for image in shown.all("img"))
    drawings = [svg for svg in shown.all("svg") if "role" in svg]
    assert all(svg["aria-label"] for svg in drawings)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_runs_the_pages_script_under_its_policy(finished: Path) -> None:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*command, f"file://{finished / RunFiles.PAGE}"], capture_output=True, text=True, timeout=60
    )
    times = re.findall(r"<time [^>]*>([^<]*)</time>", done.stdout)
    assert len(times) == 2, done.stderr
    assert not [time for time in times if time.endswith("UTC")], "local time is the script's work"


def test_captions_names_and_reasons_cannot_break_out(tmp_path: Path) -> None:
    data = {"kind": "folder", "train": str(tmp_path / "train"), "val": str(tmp_path / "val")}
    pictures(tmp_path / "train", 32)
    pictures(tmp_path / "val", 16, text=EVIL)
    (tmp_path / "train" / "2.png").write_bytes(b"<b>no picture</b>")
    data["max_skipped"] = 0.5
    assert run(tmp_path / "run", data=data, optim__samples_seen=64).finished
    shown = page(tmp_path / "run")
    assert len(shown.all("script")) == 1
    assert not [one for one in shown.found if "onerror" in one[1] or one[1].get("src") == "x"]
    assert EVIL in shown.words
    assert any(image["alt"] == EVIL for image in shown.all("img"))
    assert "2.png" in shown.words
    assert "2 corrupt" in shown.words
    lines = (tmp_path / "run" / RunFiles.SKIPPED).read_text().splitlines()
    assert len(lines) == read_run(tmp_path / "run").skipped == 2  # once in each of two epochs


def test_what_a_template_is_given_is_text_and_what_it_is_not_given_an_error() -> None:
    templates = environment("ptft.pages")
    made = templates.from_string('<p title="{{ text }}">{{ text }}<b>{{ 1 }}</b></p>')
    text = made.render(text=EVIL + "\x1b[31m")
    assert text.count("<") == 4 and "\x1b" not in text
    assert Read(text).found == [("p", {"title": EVIL + "\\x1b[31m"}), ("b", {})]
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        made.render(txt=EVIL)
    with pytest.raises(UndefinedError, match="has no attribute"):
        render(
            "ptft.report.page", "page.html", title="t", generator="g", style="page.css", record=1
        )


def test_a_run_that_fails_says_so_and_goes_on_from_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    changes = {"optim__lr": 1e30, "optim__clip_grad_norm": None, "optim__warmup": 0.0}
    with pytest.raises(TrainingError):
        run(folder, **changes)
    shown, record = page(folder), read_run(folder)
    assert record.status == "failed"
    assert record.error.startswith("step ")
    assert public_text(record.error) in shown.words and str(tmp_path) not in shown.words
    assert "not yet" in shown.words, "neighbours before training are there, after are not"


def test_a_stopped_run_says_that_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, tmp_path / "run", 4)
    assert "stopped; --resume goes on" in page(tmp_path / "run").words
    assert run(tmp_path / "run", resume=True).finished
    assert "stopped; --resume" not in page(tmp_path / "run").words


def test_a_page_that_cannot_be_written_costs_a_line_and_not_the_run(tmp_path: Path) -> None:
    from ptft.train import train
    from tests.support.heard import Heard
    from tests.support.runs import recipe

    folder = tmp_path / "run"
    # The run folder is there once the run speaks: then a folder takes the page's place.
    heard = Heard(lambda: (folder / RunFiles.PAGE).mkdir(exist_ok=True))
    assert train(recipe(folder), log=heard).finished
    said = "\n".join(heard.lines)
    assert said.count("page.html: not written: IsADirectoryError") == 1
    assert "page: " not in said


def test_a_log_that_a_kill_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "seen": 16, "loss": 2.5, "extra": true}',
        '{"step": 2, "seen": 32, "loss": NaN, "lr": 0.1}',
        '{"step": 2, "seen": 32, "a/top1": 0.5, "a/images": 7}',
        '{"step": 2, "seen": 32, "b/map": 0.25, "b/map_small": 0.125, "b/boxes": 9}',
        '{"step": 3, "se',
    ]
    (tmp_path / RunFiles.LOG).write_text("\n".join(lines))
    series = read_series(tmp_path)
    assert series == {
        "loss": [(16, 2.5)],
        "lr": [(32, 0.1)],
        "a/top1": [(32, 0.5)],
        "a/images": [(32, 7)],
        "b/map": [(32, 0.25)],
        "b/map_small": [(32, 0.125)],
        "b/boxes": [(32, 9)],
    }
    panels = group_panels(series)
    assert [(panel.title, panel.names) for panel in panels] == [
        ("loss", ["loss"]),
        ("learning rate", ["lr"]),
        ("a", ["a/top1"]),
        ("b", ["b/map"]),
    ]
    assert read_series(tmp_path / "absent") == {}


def paths(text: str, style: str) -> list[list[tuple[float, float]]]:
    """Corners of the paths of a class."""
    found = re.findall(rf'<path d="M([^"]*)" class="{style}"/>', text)
    return [[tuple(map(float, p.split())) for p in d.rstrip("Z").split("L")] for d in found]


def test_a_chart_puts_each_value_where_its_scale_says() -> None:
    panel = Panel("samples/s", ["samples_per_second"], False, False)
    series: Series = {"samples_per_second": [(0, 0.0), (50, 10.0), (200, 40.0)]}
    text = drawn(run_chart(panel, series, end=200))
    # the frame is 46 to 348 across and 8 to 176 down; the axis runs from 0 to 40
    assert paths(text, "line") == [[(46.0, 176.0), (121.5, 134.0), (348.0, 8.0)]]
    values = json.loads(Read(text).all("figure")[0]["data-chart"] or "")
    assert values["lines"] == [[[0, 0.0], [50, 10.0], [200, 40.0]]]
    assert values["y"] == [0.0, 40.0, False]


def test_a_loss_that_falls_far_is_drawn_logarithmically() -> None:
    panel = Panel("loss", ["loss"], False, False)
    text = drawn(run_chart(panel, {"loss": [(0, 10.0), (100, 0.1), (200, 0.001)]}, end=200))
    ((_, top), (_, middle), (_, bottom)) = paths(text, "line")[0]
    assert (top, middle, bottom) == (8.0, 92.0, 176.0)
    assert "logarithmic scale" in text


def test_a_long_log_is_averaged_in_buckets_that_keep_its_range() -> None:
    values = np.sin(np.arange(10_000) / 50.0) + 2.0
    panel = Panel("gradient norm", ["grad_norm"], False, False)
    series = {"grad_norm": list(enumerate(values.tolist()))}
    text = drawn(run_chart(panel, series, end=9_999))
    (line,), (band,) = paths(text, "line"), paths(text, "band")
    size = 42  # 10,000 over 240, rounded up
    assert len(line) == -(-10_000 // size)
    assert len(band) == 2 * len(line)
    shown = json.loads(Read(text).all("figure")[0]["data-chart"] or "")["lines"][0]
    expected = [values[start : start + size].mean() for start in range(0, 10_000, size)]
    assert [value for _, value in shown] == pytest.approx(expected, rel=1e-4)


def test_the_curves_file_is_drawn_from_the_charts_of_the_page(tmp_path: Path) -> None:
    """In the colours of the page: a line of an evaluation in the first and in the second one."""
    rows = [
        {"seen": 32 * step, "loss": 3.0 / step, "a/top1": 0.1 * step, "a/ece": 0.9 - 0.1 * step}
        for step in range(1, 9)
    ]
    (tmp_path / RunFiles.LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert plot_curves(tmp_path / "absent") is None
    path = plot_curves(tmp_path)
    assert path is not None
    shown = np.asarray(Image.open(path).convert("RGB"))
    left, right = np.array_split(shown.reshape(-1, shown.shape[1], 3), 2, axis=1)
    blue, orange = (0x12, 0x59, 0xB5), (0xC2, 0x41, 0x0C)
    for part, colours in ((left, (True, False)), (right, (True, True))):
        for colour, there in zip((blue, orange), colours, strict=True):
            assert bool((part == colour).all(2).sum() > 100) == there


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 6.2, [0, 2, 4, 6, 8]),
        (14.1, 14.53, [14.0, 14.2, 14.4, 14.6]),
        (0.0, 61440.0, [0, 20000, 40000, 60000, 80000]),
        (-10.0, -9.2, [-10.0, -9.8, -9.6, -9.4, -9.2]),
    ],
)
def test_ticks_are_round_and_reach_around_the_range(
    low: float, high: float, ticks: list[float]
) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_numbers_for_people() -> None:
    assert [tick_text(value) for value in (0, 0.002, 5e-4, 1500, 2e6)] == [
        "0",
        "0.002",
        "5e-4",
        "1.5k",
        "2M",
    ]
    assert [figure_text(False, value) for value in (0.0312, 12034.4, 1.7e-6, 274.0)] == [
        "0.0312",
        "12,034",
        "1.70e-06",
        "274",
    ]
    assert figure_text(True, 0.941) == "94.1\u202f%"


def test_a_page_is_written_of_any_run_folder_at_any_time(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    for name in (RunFiles.LOG, RunFiles.NEIGHBOURS, RunFiles.PAGE):
        (folder / name).unlink()
    assert write_page(folder, left=90.0) == folder / RunFiles.PAGE
    assert "Curves" not in page(folder).words
