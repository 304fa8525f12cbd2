"""COCO's figures, against pycocotools; and what counts as found."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from ptft.data import open_split
from ptft.data.boxes.box import Boxes
from ptft.errors import DataError, ModelError
from ptft.evaluate.detect import (
    Detections,
    coco_found,
    coco_truth,
    detect_figures,
    detect_split,
)
from ptft.onnx.boxes import FoundBoxes
from ptft.preprocess.frame import frame_of
from ptft.recipe import DetectEvaluation
from ptft.recipe.data import ScenesData
from tests.support.detectors import tiny_detector
from tests.support.torch_boxes import best_boxes


def drawn(pictures: int = 30, *, seed: int = 0, federated: bool = False) -> Detections:
    """Boxes of three classes and guesses near them."""
    rng = np.random.default_rng(seed)
    made = Detections(["a", "b", "c"])
    for number in range(pictures):
        count = int(rng.integers(0, 6))
        low = rng.uniform(0, 300, (count, 2))
        corners = np.concatenate([low, low + rng.uniform(8, 180, (count, 2))], 1).astype(np.float32)
        labels = rng.integers(0, 3, count)
        crowd = rng.random(count) < 0.15
        asked = np.array([0, 1]) if federated and number % 2 else None
        if asked is not None:
            corners, crowd, labels = corners[labels < 2], crowd[labels < 2], labels[labels < 2]
        boxes = Boxes.of(corners, labels, crowd=crowd.tolist(), asked=asked)
        guesses = np.repeat(boxes.corners, 2, 0) + rng.normal(0, 9, (2 * len(boxes), 4))
        noise = rng.uniform(0, 200, (4, 2))
        guesses = np.concatenate([guesses, np.concatenate([noise, noise + 60], 1)])
        named = np.concatenate([np.repeat(boxes.labels, 2), rng.integers(0, 3, 4)])
        wrong = rng.random(len(named)) < 0.2
        named[wrong] = rng.integers(0, 3, int(wrong.sum()))
        scores = rng.random(len(named)).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        made.found.append(
            FoundBoxes(
                guesses[order].astype(np.float32), scores[order], named[order].astype(np.int64)
            )
        )
        made.boxes.append(boxes)
        made.sizes.append((480, 480))
        made.names.append(f"{number}.png")
    return made


@pytest.mark.parametrize("federated", [False, True])
def test_the_figures_are_those_of_pycocotools(federated: bool) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    made = drawn(federated=federated)
    figures = detect_figures(made)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco_truth(made)
        truth.createIndex()
        theirs = COCOeval(truth, truth.loadRes(coco_found(made)), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    names = ("map", "ap50", "ap75", "map_small", "map_medium", "map_large", "ar1", "ar10", "ar100")
    for name, value in zip(names, theirs.stats[:9], strict=True):
        assert abs(figures[name] - value) < 1e-9, name
    assert 0.05 < figures["map"] < 0.95
    for number, name in enumerate(made.classes):
        column = theirs.eval["precision"][0, :, number, 0, -1]
        assert abs(figures["ap50_by_class"][name] - column[column > -1].mean()) < 1e-9


def test_finding_nothing_is_nought_and_nothing_to_find_is_an_error() -> None:
    made = drawn(4)
    none = FoundBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    made.found = [none] * 4
    assert detect_figures(made)["map"] == 0.0
    made.boxes = [Boxes.none()] * 4
    with pytest.raises(DataError, match="no box of the classes asked for"):
        detect_figures(made)


def test_the_surest_come_first_and_overlaps_go_where_asked() -> None:
    frame = frame_of((200, 100), (64, 64), "squash")
    logits = torch.tensor([[2.0, -3.0], [1.0, -2.0], [-1.0, 0.5]])
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.51, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]])
    found = best_boxes(logits, boxes, frame, most=4)
    assert found.labels.tolist() == [0, 0, 1, 0]
    assert found.corners[0].tolist() == pytest.approx([80, 40, 120, 60])
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    kept = best_boxes(logits, boxes, frame, most=4, nms=0.5)
    assert kept.labels.tolist() == [0, 1, 0, 1]  # the second place is the first's, for each query
    assert len(best_boxes(logits, boxes, frame, threshold=0.6).labels) == 3
    with pytest.raises(ModelError, match="not finite"):
        best_boxes(logits * float("nan"), boxes, frame)


def test_a_split_is_asked_for_its_own_classes() -> None:
    model = tiny_detector().eval()
    section = ScenesData(train=8, val=6)
    val = open_split(section, "val")
    assert val.box_classes is not None
    whole = detect_split(model, val, DetectEvaluation(batch=4), workers=0)
    assert whole.classes == val.box_classes and len(whole.found) == 6
    one = replace_classes(val.box_classes[2:5])
    part = detect_split(model, val, one, workers=0)
    assert part.classes == val.box_classes[2:5]
    assert sum(map(len, part.boxes)) < sum(map(len, whole.boxes)) == 12
    with pytest.raises(DataError, match="'red sqare'"):
        detect_split(model, val, replace_classes(["red sqare"]), workers=0)
    model.drop_detector()
    with pytest.raises(ModelError, match="needs a detector"):
        detect_split(model, val, DetectEvaluation(), workers=0)


def replace_classes(classes: list[str]) -> DetectEvaluation:
    return DetectEvaluation(classes=classes)


def test_one_function_for_both_orders_of_classes() -> None:
    """Figures do not depend on how classes are numbered."""
    made = drawn(12, seed=3)
    turn = np.array([2, 0, 1])
    other = Detections(
        [made.classes[n] for n in np.argsort(turn)],
        made.names,
        [replace(found, labels=turn[found.labels]) for found in made.found],
        [replace(boxes, labels=turn[boxes.labels]) for boxes in made.boxes],
        made.sizes,
    )
    assert detect_figures(made)["map"] == pytest.approx(detect_figures(other)["map"], abs=1e-12)
