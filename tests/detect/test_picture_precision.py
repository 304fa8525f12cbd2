"""What each picture says of a split's average precision."""

import numpy as np
import pytest

from ptft.compare.stats import paired_interval
from ptft.data.boxes.box import Boxes
from ptft.errors import DataError
from ptft.evaluate.detect import Detections, detect_figures
from ptft.evaluate.picture_precision import PRECISIONS_AT, picture_precision
from ptft.onnx.boxes import FoundBoxes

CLASSES = ["one", "other", "rare"]


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    low = rng.uniform(0, 70, (count, 2))
    return np.concatenate([low, low + rng.uniform(14, 30, (count, 2))], axis=1).astype(np.float32)


def split(seed: int, pictures: int = 24, *, near: float = 3.0, rare: int | None = 3) -> Detections:
    """Things of three classes, some of them regions, one class in one picture alone; answers near
    them, several to one thing, and others anywhere. What is there depends on no seed."""
    there, rng = np.random.default_rng(0), np.random.default_rng(seed)
    found, marked = [], []
    for place in range(pictures):
        count = int(there.integers(0, 6))
        corners, labels = _boxes(there, count), there.integers(0, 2, count)
        if place == rare:
            corners, labels = np.concatenate([corners, _boxes(there, 1)]), np.append(labels, 2)
        crowd = (there.random(len(labels)) < 0.2).tolist()
        asked = np.array([0, 2]) if place == 5 else None
        marked.append(Boxes.of(corners, labels, crowd=crowd, asked=asked))
        again = np.repeat(corners, 2, axis=0)
        moved = again + rng.uniform(-near, near, again.shape)
        answers = np.concatenate([moved, _boxes(rng, 4)])
        said = np.concatenate([np.repeat(labels, 2), rng.integers(0, 3, 4)])
        scores = np.round(rng.random(len(said)), 2)  # some are equal
        order = np.argsort(-scores, kind="stable")
        found.append(
            FoundBoxes(
                answers[order].astype(np.float32),
                scores[order].astype(np.float32),
                said[order].astype(np.int64),
            )
        )
    names = [str(place) for place in range(pictures)]
    sizes = [(100, 100)] * pictures
    return Detections(CLASSES, names, found, marked, sizes, indices=list(range(pictures)))


def only(detections: Detections, places: list[int]) -> Detections:
    rows = (
        [values[place] for place in places]
        for values in (detections.names, detections.found, detections.boxes, detections.sizes)
    )
    return Detections(detections.classes, *rows, indices=places)


@pytest.mark.parametrize("metric", PRECISIONS_AT)
def test_the_mean_of_the_pictures_is_what_coco_says(metric: str) -> None:
    for seed in range(3):
        detections = split(seed)
        found = picture_precision(detections, metric)
        assert found.value == pytest.approx(detect_figures(detections)[metric], abs=1e-6)
        assert found.value > 0.1
        assert found.pictures.mean() == pytest.approx(found.value, abs=1e-12)


def test_a_picture_s_value_is_what_the_split_has_without_it() -> None:
    """Held against COCO's figure of each smaller split, of the classes that others show too."""
    detections = split(1)
    values = picture_precision(detections, "ap50").pictures
    whole = detect_figures(detections)
    left = []
    every = range(len(detections.names))
    for place in every:
        others = only(detections, [one for one in every if one != place])
        by_class = detect_figures(others)["ap50_by_class"]
        assert ("rare" in by_class) == (place != 3)
        left.append(np.mean([by_class.get(n, whole["ap50_by_class"][n]) for n in CLASSES]))
    wanted = whole["ap50"] + (len(left) - 1) * (np.mean(left) - np.array(left))
    assert values == pytest.approx(wanted, abs=1e-5)


def test_paired_intervals_are_those_of_the_bootstrap_over_pictures() -> None:
    """A model that places boxes better against one that places them worse: the interval of the
    difference, and that of drawing pictures again and computing both figures anew."""
    pair = [split(1, 40, near=3.0, rare=None), split(2, 40, near=7.0, rare=None)]
    one, other = (picture_precision(found, "ap50") for found in pair)
    low, high = paired_interval(one.pictures[None], other.pictures[None], confidence=0.9)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(150):
        places = rng.integers(0, 40, 40).tolist()
        figures = [detect_figures(only(found, places))["ap50"] for found in pair]
        drawn.append(figures[0] - figures[1])
    least, most = np.quantile(drawn, [0.05, 0.95])
    assert one.value - other.value > 0.1
    assert high - low == pytest.approx(most - least, rel=0.25)
    assert low == pytest.approx(least, abs=0.03) and high == pytest.approx(most, abs=0.03)


def test_a_split_without_a_thing_has_no_precision() -> None:
    detections = split(0, 2)
    detections.boxes = [Boxes.none(), Boxes.none()]
    with pytest.raises(DataError, match="no box of the classes"):
        picture_precision(detections, "ap50")
