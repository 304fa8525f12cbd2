"""What a detector finds and misses, box by box, and how a run's page shows it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptft.api import measure_beside
from ptft.artifact import RunFiles
from ptft.data.boxes.box import Boxes
from ptft.evaluate.detect import Detections, detect_figures, precision_curves
from ptft.evaluate.mistakes import best_threshold, count_judged, judge_picture
from ptft.onnx.boxes import FoundBoxes
from ptft.report.boxes.record import BOXES_FILE, found_boxes, read_boxes
from ptft.report.page.page import write_page
from tests.support.pages import Read
from tests.support.runs import run

THERE = [(0, 0, 20, 20), (40, 0, 60, 20), (0, 40, 20, 60), (40, 40, 60, 60)]


def detected(*rows: tuple[tuple[float, ...], int, float]) -> FoundBoxes:
    return FoundBoxes(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[2] for row in rows], np.float32),
        np.array([row[1] for row in rows], np.int64),
    )


@pytest.fixture(scope="module")
def found_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a detector."""
    folder = tmp_path_factory.mktemp("found") / "run"
    run(
        folder,
        model__image_size=160,
        data__size=64,
        data__train=8,
        data__val=6,
        objective={"kind": "detect"},
        optim__samples_seen=4,
        optim__global_batch=4,
        evaluate=[{"kind": "detect", "name": "seen"}],
        run__neighbours=False,
    )
    return folder


@pytest.fixture
def seen() -> Detections:
    """Four things, the last a crowd, and an answer of each kind; and a picture without any."""
    boxes = Boxes.of(
        np.array(THERE, np.float32),
        np.array([0, 0, 1, 0], np.int64),
        crowd=[False, False, False, True],
    )
    found = detected(
        ((0, 0, 20, 20), 0, 0.9),  # right
        ((1, 0, 20, 20), 0, 0.8),  # the same again
        ((40, 0, 60, 20), 1, 0.7),  # another class
        ((10, 45, 30, 60), 1, 0.6),  # badly placed
        ((70, 70, 90, 90), 0, 0.5),  # nothing there
        ((40, 40, 60, 60), 0, 0.45),  # in the crowd
        ((40, 0, 60, 20), 0, 0.4),  # right, less sure than the wrong ones
    )
    none = FoundBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    return Detections(
        ["one", "other"],
        ["a", "b"],
        [found, none],
        [boxes, Boxes.none()],
        2 * [(100, 100)],
        indices=[0, 1],
    )


def test_every_box_is_what_it_is(seen: Detections) -> None:
    judged = judge_picture(seen, 0, 0.0)
    assert [(box.name, box.kind) for box in judged if box.score is None] == [
        ("one", "found"),
        ("one", "found"),
        ("other", "missed"),
    ]
    assert [box.kind for box in judged if box.score is not None] == [
        "right",
        "twice",
        "another class",
        "badly placed",
        "nothing there",
        "right",
    ]
    assert count_judged(seen, 0.75) == {"missed": 2, "found": 1, "right": 1, "twice": 1}


def test_answers_count_from_where_f1_is_best(seen: Detections) -> None:
    """One right of one answer and three things: 2/4; two of seven: 4/10."""
    assert best_threshold(seen) == pytest.approx(0.9)


def test_the_area_below_a_curve_is_the_precision_that_is_told(seen: Detections) -> None:
    curves, figures = precision_curves(seen), detect_figures(seen)
    assert set(curves) == {"one", "other"}
    for name, curve in curves.items():
        assert len(curve) == 101
        assert np.mean(curve) == pytest.approx(figures["ap50_by_class"][name], abs=1e-3)


def test_an_evaluation_s_page_shows_the_same(found_run: Path, tmp_path: Path) -> None:
    """What ``ptft evaluate --page`` shows of a run is what the run's own page shows."""
    page = tmp_path / "page.html"
    [figures] = measure_beside([str(found_run)], None, [], page=page).values()
    text = page.read_text()
    shown, own = Read(text), Read((found_run / RunFiles.PAGE).read_text())
    assert len(shown.all("image")) == len(own.all("image")) == 6

    def titles(read: Read) -> list[str]:
        told = [words for tag, words in read.texts if tag == "title" and ": " in words]
        return [words for words in told if not words.startswith("run, ")]  # a bar of the chart

    assert titles(shown) == titles(own) and len(titles(own)) >= 12
    assert figures["seen"]["boxes"] == 12
    assert "seen, box by box" in text and "precision over recall" in text


def test_the_page_shows_pictures_curves_and_mistakes(found_run: Path) -> None:
    folder = found_run
    shown = read_boxes(folder)["seen"]
    assert len(shown.pictures) == 6 and len(shown.curves) == 8
    assert shown.counts["missed"] + shown.counts.get("found", 0) == 12
    assert all(picture.width == 64 for picture in shown.pictures)
    text = (folder / RunFiles.PAGE).read_text()
    page = Read(text)
    assert len(page.all("image")) == 6
    assert len(page.all("rect")) >= 12
    assert "precision over recall" in text and "missed" in text
    values = json.loads((folder / BOXES_FILE).read_text())
    values["seen"]["pictures"][0]["name"] = "<script>alert(1)</script>"
    (folder / BOXES_FILE).write_text(json.dumps(values))
    write_page(folder)
    assert "<script>alert" not in (folder / RunFiles.PAGE).read_text()


def test_the_worst_pictures_come_first(seen: Detections) -> None:
    class Two:
        def __getitem__(self, index: int) -> object:
            return type("Sample", (), {"image": Image.new("RGB", (100, 100))})

    shown = found_boxes(Two(), seen)  # type: ignore[arg-type]
    assert [(one.name, one.mistakes) for one in shown.pictures] == [("a", 2), ("b", 0)]
