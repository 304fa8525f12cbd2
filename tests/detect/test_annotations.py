"""Boxes as annotation tools write them, with what is odd in real files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptft.data import SampleSet, open_split
from ptft.data.boxes.read import read_marked
from ptft.errors import DataError, RecipeError, SampleError
from ptft.preprocess import ImagePreprocess
from ptft.recipe.data import BoxesData
from tests.support.annotations import coco, opened, voc, yolo

BCCD = Path(__file__).parents[3] / "shared" / "data" / "bccd"


def pixels_of(samples: SampleSet, index: int) -> list[list[float]]:
    return read_marked(samples[index], ImagePreprocess()).boxes.corners.tolist()


def test_coco_has_gaps_in_its_ids_crowds_and_pictures_without_boxes(tmp_path: Path) -> None:
    samples = opened(train=coco(tmp_path / "train.json"))
    assert samples.box_classes == ["cat", "dog"]  # by id, whatever the order of the file
    boxes = samples[0].boxes
    assert boxes is not None
    assert boxes.labels.tolist() == [1, 0]
    assert boxes.crowd.tolist() == [False, True]
    assert pixels_of(samples, 0)[0] == [10, 5, 30, 15]
    empty = samples[1].boxes
    assert empty is not None and len(empty) == 0
    assert samples.notes(1) == [
        "2 boxes of 2 classes (cat 1, dog 1); 1 pictures without any",
    ]


def test_boxes_of_no_area_and_outside_are_counted_and_named(tmp_path: Path) -> None:
    rows = [[10, 5, 20, 0], [10, 5, 100, 10], [50, 5, 10, 10], [10, 5, float("nan"), 1]]
    annotations = [
        {"id": n, "image_id": 7, "category_id": 3, "bbox": row} for n, row in enumerate(rows)
    ]
    samples = opened(train=coco(tmp_path / "train.json", annotations=annotations))
    said = "; ".join(samples.notes(1))
    assert "1 box without area: left out (a.png)" in said
    assert "1 box reaching beyond the picture: cut (a.png)" in said
    assert "1 box wholly outside the picture: left out (a.png)" in said
    assert "1 box not finite: left out (a.png)" in said
    assert pixels_of(samples, 0) == [[10, 5, 40, 15]]


def test_shares_where_pixels_are_wanted_are_refused(tmp_path: Path) -> None:
    row = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0.1, 0.2, 0.3, 0.4]}
    with pytest.raises(DataError, match=r"no coordinate is above 0\.6.*COCO has pixels"):
        opened(train=coco(tmp_path / "train.json", annotations=[row]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"categories": []}, "categories: it is empty"),
        ({"annotations": [{"image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]}]}, "category_id"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2]}]}, "x, y, width"),
        ({"images": [{"id": 7, "file_name": "../../a.png"}]}, "a path inside"),
        ({"images": "all"}, "images: 'all'; allowed: a list"),
    ],
)
def test_damaged_coco_is_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        opened(train=coco(tmp_path / "train.json", **changes))
    assert "\n" not in str(error.value)


def test_lvis_says_what_a_picture_was_annotated_for(tmp_path: Path) -> None:
    images = [
        {"id": 7, "file_name": "a.png", "neg_category_ids": [3]},
        {"id": 9, "file_name": "b.png", "neg_category_ids": []},
    ]
    samples = opened(train=coco(tmp_path / "train.json", images=images))
    first, second = samples[0].boxes, samples[1].boxes
    assert first is not None and first.asked is not None and first.asked.tolist() == [0, 1]
    assert second is not None and second.asked is not None and second.asked.tolist() == []


def test_voc_as_it_lies(tmp_path: Path) -> None:
    train = voc(tmp_path, [("RBC", 0, 1, 2, 11, 12), ("WBC", 1, 5, 5, 40, 30)])
    samples = opened(train=train)
    assert samples.box_classes == ["RBC", "WBC"]
    assert pixels_of(samples, 0) == [[1, 2, 11, 12], [5, 5, 40, 30]]
    boxes = samples[0].boxes
    assert boxes is not None and boxes.difficult.tolist() == [False, True]
    assert pixels_of(opened(train=train, voc_origin=1), 0)[0] == [0, 1, 11, 12]
    assert len(opened(train=str(tmp_path / "Annotations"))) == 1


def test_voc_that_declares_entities_is_not_read(tmp_path: Path) -> None:
    train = voc(tmp_path, [("RBC", 0, 1, 2, 11, 12)])
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    (tmp_path / "Annotations" / "a.xml").write_text(bomb)
    with pytest.raises(DataError, match="entities"):
        opened(train=train)


def test_an_annotation_of_another_size_is_no_sample(tmp_path: Path) -> None:
    size = "<size><width>400</width><height>300</height></size>"
    samples = opened(train=voc(tmp_path, [("RBC", 0, 10, 20, 110, 120)], size=size))
    with pytest.raises(SampleError, match="40x30 pixels, and its boxes are of 400x300"):
        read_marked(samples[0], ImagePreprocess())


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_the_stored_picture_turn_along(tmp_path: Path, orientation: int) -> None:
    """A marked corner is where its box is, after EXIF turned both."""
    size = "<size><width>40</width><height>30</height></size>"
    train = voc(tmp_path, [("RBC", 0, 2, 3, 12, 9)], size=size)
    image = Image.new("RGB", (40, 30), (0, 0, 0))
    image.paste((255, 255, 255), (2, 3, 12, 9))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "JPEGImages" / "a.jpg"
    image.save(path, exif=exif, quality=100, subsampling=0)
    marked = read_marked(opened(train=train)[0], ImagePreprocess())
    assert marked.size == (30, 40)
    bright = marked.pixels[..., 0] > 128
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert marked.boxes.corners[0].tolist() == seen


def test_yolo_has_shares_polygons_and_pictures_of_nothing(tmp_path: Path) -> None:
    train = yolo(tmp_path, "1 0.5 0.5 0.5 0.2\n0 0.1 0.1 0.3 0.1 0.2 0.4\n")
    samples = opened(train=train)
    assert samples.box_classes == ["cat", "dog"]
    found = np.array(pixels_of(samples, 0))
    assert np.allclose(found, [[10, 12, 30, 18], [4, 3, 12, 12]], atol=1e-4)
    assert "1 box drawn as polygons: their bounds are taken" in samples.notes(1)[0]
    other = opened(train=yolo(tmp_path / "other", None, "names: {0: cat, 1: dog}"))
    boxes = other[0].boxes
    assert boxes is not None and len(boxes) == 0
    folder = opened(train=str(tmp_path / "images" / "train"), classes=["cat", "dog"])
    assert len(folder) == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("0 20 15 10 10", "it is in pixels"),
        ("2 0.5 0.5 0.1 0.1", "class 2; allowed: 0 to 1"),
        ("cat 0.5 0.5 0.1 0.1", "allowed: a number, then shares"),
        ("0 0.5 0.5", "2 numbers"),
    ],
)
def test_damaged_yolo_names_its_line(tmp_path: Path, lines: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        opened(train=yolo(tmp_path, lines))
    assert "a.txt: line 1" in str(error.value)


def test_yolo_without_names_asks_for_them(tmp_path: Path) -> None:
    train = yolo(tmp_path, "0 0.5 0.5 0.1 0.1", names="nc: 2")
    with pytest.raises(DataError, match=r"data\.classes has to name them"):
        opened(train=train)


def test_val_has_the_numbers_of_train_and_no_class_of_its_own(tmp_path: Path) -> None:
    train = voc(tmp_path / "t", [("RBC", 0, 1, 2, 11, 12), ("WBC", 0, 5, 5, 40, 30)])
    val = voc(tmp_path / "v", [("WBC", 0, 1, 2, 11, 12)])
    section = BoxesData(train=train, val=val)
    boxes = open_split(section, "val")[0].boxes
    assert boxes is not None and boxes.labels.tolist() == [1]
    strange = voc(tmp_path / "s", [("WCB", 0, 1, 2, 11, 12)])
    with pytest.raises(DataError, match=r"data\.val: a\.jpg: class 'WCB'.*WBC"):
        open_split(BoxesData(train=train, val=strange), "val")
    with pytest.raises(RecipeError, match=r"data\.test: missing; given: train, val"):
        open_split(section, "test")


@pytest.mark.skipif(not BCCD.is_dir(), reason="the shared blood cells are not here")
def test_blood_cells_are_read_as_their_readme_counts_them() -> None:
    lists = BCCD / "ImageSets" / "Main"
    section = BoxesData(
        **{split: str(lists / f"{split}.txt") for split in ("train", "val", "test")}
    )
    counted = []
    for split in ("train", "val", "test"):
        samples = open_split(section, split)  # type: ignore[arg-type]
        labels = [samples[n].boxes.labels for n in range(len(samples))]  # type: ignore[union-attr]
        counts = np.bincount(np.concatenate(labels)).tolist()
        counted.append((len(samples), *counts))
        faults = [note for note in samples.notes(1) if "without area" in note]
        assert len(faults) == (split != "test")
    # the README's counts, but for the two boxes without area
    assert counted == [(205, 209, 2381, 214), (87, 83, 967, 87), (72, 69, 805, 71)]
