"""What a detector counts: chosen on validation, kept with the model, told as figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptft.artifact import RunFiles, read_json, write_json
from ptft.data.boxes.box import Boxes
from ptft.errors import DataError, ModelError
from ptft.evaluate.counting import best_counting
from ptft.evaluate.detect import Detections, count_figures
from ptft.model import load_model
from ptft.model.spec import SPEC
from ptft.onnx.boxes import FoundBoxes
from ptft.onnx.counting import Counting, count_found
from tests.support.runs import run

CLASSES = ["red", "white"]


def answers(*rows: tuple[float, float, int]) -> FoundBoxes:
    """Boxes of ten pixels: left edge, score, class; the surest first."""
    ordered = sorted(rows, key=lambda row: -row[1])
    corners = np.array([[x, 0, x + 10, 10] for x, _, _ in ordered], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in ordered], np.float32)
    return FoundBoxes(corners, scores, np.array([label for *_, label in ordered], np.int64))


def marked(*labels: int, crowd: int = 0, asked: list[int] | None = None) -> Boxes:
    """So many things of each class; the last ``crowd`` of them are regions."""
    count = len(labels)
    regions = np.arange(count) >= count - crowd
    return Boxes(
        np.tile(np.array([0, 0, 10, 10], np.float32), (count, 1)),
        np.array(labels, np.int64),
        regions,
        np.zeros(count, bool),
        None if asked is None else np.array(asked, np.int64),
    )


def drawn(seed: int) -> Detections:
    """Answers without overlaps, some of them right."""
    rng = np.random.default_rng(seed)
    found, boxes = [], []
    for _ in range(6):
        rows = [(20.0 * n, float(rng.uniform()), int(rng.integers(2))) for n in range(9)]
        found.append(answers(*rows))
        boxes.append(marked(*rng.integers(0, 2, rng.integers(0, 6)).tolist()))
    return Detections(CLASSES, names=["p"] * 6, found=found, boxes=boxes)


def error(split: Detections, counting: Counting, number: int) -> float:
    """The mean error of a class's counts, as one would write it down."""
    shares = []
    for one, boxes in zip(split.found, split.boxes, strict=True):
        there = int((boxes.labels == number).sum())
        if there:
            shares.append(abs(int(count_found(one, counting)[number]) - there) / there)
    return float(np.mean(shares))


@pytest.mark.parametrize("seed", range(4))
def test_no_thresholds_count_better_than_those_that_are_chosen(seed: int) -> None:
    split = drawn(seed)
    choice = best_counting(split)
    assert choice.counting.nms is None  # nothing overlaps
    for number, name in enumerate(CLASSES):
        scores = [float(s) for one in split.found for s in one.scores]
        cuts = [0.0, *(np.nextafter(s, 1) for s in scores), *scores]
        best = min(error(split, Counting((cut, cut), None), number) for cut in cuts)
        assert choice.errors[name] == pytest.approx(best)
        assert error(split, choice.counting, number) == pytest.approx(best)


def test_a_thing_that_is_told_twice_counts_once() -> None:
    """Without NMS no threshold is right: the second answer of one thing is surer than the first of
    another. Things that touch are told apart."""
    found = [
        answers((0, 0.9, 0), (1, 0.8, 0), (20, 0.6, 0), (26, 0.5, 0)),
        answers((0, 0.9, 0), (1, 0.85, 0), (40, 0.2, 0)),
    ]
    boxes = [marked(0, 0, 0), marked(0)]
    choice = best_counting(Detections(CLASSES, ["a", "b"], found=found, boxes=boxes))
    assert choice.errors == {"red": 0.0}
    assert choice.counting.nms is not None
    assert [int(count_found(one, choice.counting)[0]) for one in found] == [3, 1]
    assert choice.counting.thresholds[1] == 0.5  # nothing says where
    assert "1 of 2 classes are in none of them" in str(choice)
    assert "red 0.0%" in str(choice)


def test_equal_scores_are_not_told_apart() -> None:
    found = [answers((0, 0.5, 0), (20, 0.5, 0)), answers((0, 0.9, 0))]
    choice = best_counting(
        Detections(CLASSES, ["a", "b"], found=found, boxes=[marked(0), marked(0)])
    )
    assert choice.errors["red"] == pytest.approx(0.5)


def test_figures_say_what_is_counted_where_nothing_is_marked() -> None:
    boxes = [
        marked(0, 0, 0, 0, crowd=0),
        marked(1, crowd=0),
        marked(0, 0, 1, crowd=1),
        marked(0, asked=[0]),
    ]
    told = [np.array(one) for one in ([3, 0], [2, 1], [2, 5], [1, 9])]
    split = Detections(CLASSES, ["p"] * 4, boxes=boxes, counts=told)
    figures = count_figures(split)
    assert figures["count_error_by_class"] == {"red": pytest.approx(1 / 12), "white": 0.0}
    assert figures["counted_by_class"] == {"red": 8, "white": 6}  # of nobody's nine nothing
    assert figures["marked_by_class"] == {"red": 7, "white": 1}
    assert figures["counted_unmarked_by_class"] == {"red": 2.0, "white": 2.5}
    assert count_figures(Detections(CLASSES, ["p"], boxes=boxes[:1])) == {}


SMALL: dict[str, Any] = {
    "model__image_size": 160,
    "data__size": 64,
    "data__train": 16,
    "data__val": 4,
    "objective": {"kind": "detect", "templates": ["a {}"], "count": True, "places": 2},
    "optim__samples_seen": 8,
    "optim__global_batch": 4,
    "early_stop": None,
    "evaluate": [
        {"kind": "detect", "name": "own", "split": "train", "batch": 4, "nms": 0.9},
        {"kind": "detect", "name": "nms", "split": "train", "batch": 4, "nms": 0.1},
        {
            **{"kind": "detect", "name": "other", "split": "train", "batch": 4, "nms": 0.5},
            "templates": ["my {}"],
        },
    ],
    "run__neighbours": False,
    "run__page": False,
}


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose val shows what training does."""
    from PIL import Image

    data = tmp_path_factory.mktemp("boxes")
    for split in ("train", "val"):
        (data / split / "images").mkdir(parents=True)
        (data / split / "labels").mkdir()
        for number in range(4):
            shade = 40 * number
            Image.new("RGB", (64, 64), (shade, 0, 0)).save(
                data / split / "images" / f"{number}.png"
            )
            lines = [f"{k % 2} 0.{k + 2} 0.5 0.1 0.2" for k in range(number + 1)]
            (data / split / "labels" / f"{number}.txt").write_text("\n".join(lines) + "\n")
    (data / "data.yaml").write_text("train: train/images\nval: val/images\nnames: [cell, dot]\n")
    section = {"kind": "boxes", "train": str(data / "data.yaml"), "val": str(data / "data.yaml")}
    changes = {key: value for key, value in SMALL.items() if not key.startswith("data")}
    folder = data / "run"
    assert run(folder, **changes, data=section).finished
    return folder


def test_a_run_chooses_keeps_and_measures(counted: Path) -> None:
    figures = json.loads((counted / RunFiles.METRICS).read_text())
    model = load_model(counted)
    assert model.detector is not None
    kept = model.detector.spec.counting
    assert kept is not None and len(kept.thresholds) == 2
    assert model.detector.spec.nms == 0.9  # that of the first evaluation
    assert set(figures["own"]["count_error_by_class"]) == {"cell", "dot"}
    assert figures["own"]["marked_by_class"] == {"cell": 6, "dot": 4}
    counts = [figures[name]["counted_by_class"] for name in ("own", "nms")]
    assert counts[0] == counts[1]  # whatever an evaluation suppresses
    assert "counted_by_class" not in figures["other"]  # of other prompts nothing was chosen


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("thresholds", [0.5]),
        ("thresholds", [0.5, 1.0]),
        ("nms", 2),
        ("nms", "a"),
        ("thresholds", None),
    ],
)
def test_a_counting_that_does_not_fit_is_named(
    counted: Path, tmp_path: Path, key: str, value: object
) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(counted / RunFiles.FINAL, folder)
    values = read_json(folder / SPEC)
    values["detector"]["counting"][key] = value
    write_json(folder / SPEC, values)
    with pytest.raises(ModelError, match=rf"detector.counting.*{key}"):
        load_model(folder)


def test_a_val_that_shows_none_of_the_classes_is_refused(tmp_path: Path) -> None:
    """Of drawn scenes val has the pairs that training never shows."""
    with pytest.raises(DataError, match=r"objective\.count: data\.val marks none of the classes"):
        run(tmp_path / "run", **{**SMALL, "evaluate": []})
    assert not (tmp_path / "run" / RunFiles.METRICS).exists()
