"""Annotations that mean something, untidily written: read, and said; or not read."""

import json
from pathlib import Path
from typing import Any

import pytest

from ptft.data import open_split
from ptft.data.checks.survey import survey_split
from ptft.errors import DataError, SampleError
from ptft.recipe.data import FolderData
from tests.support.annotations import coco, opened, picture, voc, yolo

BOX = {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}
PICTURES = [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "a.png"}]


def corners(path: str, index: int = 0) -> list[list[float]]:
    boxes = opened(train=path)[index].boxes
    assert boxes is not None
    return boxes.corners.astype(float).round(4).tolist()


def test_a_box_that_is_marked_twice_counts_once(tmp_path: Path) -> None:
    """The order stays, and what differs in anything stays."""
    rows = [BOX, {**BOX, "category_id": 90}, BOX, {**BOX, "iscrowd": 1}, BOX]
    train = coco(tmp_path / "train.json", annotations=rows)
    boxes = opened(train=train)[0].boxes
    assert boxes is not None and boxes.labels.tolist() == [0, 1, 0]
    assert boxes.crowd.tolist() == [False, False, True]
    assert opened(train=train).notes(1)[0] == "2 boxes marked twice: counted once (a.png)"
    line = "1 0.5 0.5 0.5 0.2\n"
    train = yolo(tmp_path / "yolo", line + line)
    assert len(corners(train)) == 1
    assert "1 box marked twice" in opened(train=train).notes(1)[0]
    field = {"bbox": [[25, 5, 12, 10], [25, 5, 12, 10]], "category": ["cat", "cat"]}
    folder = tmp_path / "folder" / "train"
    picture(folder / "a.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "objects": field}))
    samples = open_split(FolderData(train=str(folder), boxes="objects"), "train")
    assert "1 box marked twice" in "; ".join(samples.notes(1))


def test_a_picture_with_two_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png: a second annotation of this picture"):
        opened(train=coco(tmp_path / "train.json", images=PICTURES))


def test_a_copied_annotation_names_the_picture_that_it_was_copied_from(tmp_path: Path) -> None:
    train = voc(tmp_path, [("RBC", 0, 1, 2, 11, 12)])
    text = (tmp_path / "Annotations" / "a.xml").read_text()
    (tmp_path / "Annotations" / "b.xml").write_text(text)
    Path(train).write_text("a\nb\n")
    with pytest.raises(DataError, match=r"a\.jpg: a second annotation"):
        opened(train=train)  # b.xml alone says a.jpg, and there is no b.jpg
    picture(tmp_path / "JPEGImages" / "b.JPG")
    with pytest.raises(DataError, match=r"b\.xml: filename 'a\.jpg', and b\.JPG is there as well"):
        opened(train=train)
    (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / "JPEGImages" / "c.jpg")
    Path(train).write_text("b\n")
    assert len(opened(train=train)) == 1  # its own, since what it names is not there


def test_ids_of_another_kind_mark_nothing(tmp_path: Path) -> None:
    rows = [{**BOX, "image_id": "7"}, {**BOX, "image_id": "9"}]
    with pytest.raises(DataError, match=r"image_id '7', which is 7 in images"):
        opened(train=coco(tmp_path / "train.json", annotations=rows))


def test_the_folder_is_found_though_the_first_picture_is_absent(tmp_path: Path) -> None:
    train = coco(tmp_path / "train.json")
    (tmp_path / "images" / "a.png").unlink()
    samples = opened(train=train)
    assert samples[1].name == "b.png"
    with pytest.raises(SampleError, match=r"a\.png: No such file"):
        samples[0]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("\ufeff1 0.5 0.5 0.5 0.2\r\n", [0.25, 0.4, 0.75, 0.6]),
        ("1.0 0.5 0.5 0.5 0.2", [0.25, 0.4, 0.75, 0.6]),
        ("1 0.5 0.5 0.5 0.2 0.93", [0.25, 0.4, 0.75, 0.6]),
        ("1 0.95 0.5 0.2 0.2", [0.85, 0.4, 1.0, 0.6]),
    ],
    ids=["mark", "float", "score", "beyond"],
)
def test_lines_of_yolo(tmp_path: Path, line: str, found: list[float]) -> None:
    train = yolo(tmp_path, line)
    samples = opened(train=train)
    boxes = samples[0].boxes
    assert boxes is not None and boxes.labels.tolist() == [1]
    assert corners(train) == [found]
    said = {"0.93": "a detector's score behind them", "0.95": "reaching beyond the picture: cut"}
    for word, note in said.items():
        assert (word in line) == any(note in each for each in samples.notes(1))


@pytest.mark.parametrize("line", ["1.5 0.5 0.5 0.5 0.2", "nan 0.5 0.5 0.5 0.2", "1e999 0 0 0 0"])
def test_a_class_that_is_no_number_of_one(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"line 1: .*; allowed: a number, then shares"):
        opened(train=yolo(tmp_path, line))


def test_a_list_of_yolo_that_repeats_a_picture_shows_it_more_often(tmp_path: Path) -> None:
    train = yolo(tmp_path, "1 0.5 0.5 0.5 0.2", "nc: 2\nnames: [cat, dog]")
    (tmp_path / "list.txt").write_text("\ufeffimages/train/a.png\r\nimages/train/a.png\r\n")
    Path(train).write_text("train: list.txt\nnames: [cat, dog]\n")
    samples = opened(train=train)
    assert len(samples) == 2
    assert "1 box of pictures that are listed again: kept (a.png)" in samples.notes(1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"nc: 3\nnames: [cat, dog]\n", "nc: 3, and names has 2"),
        (b"names: [cat, caf\xe9]\n", "line 2: not UTF-8"),
    ],
)
def test_names_of_yolo_that_do_not_fit(tmp_path: Path, text: bytes, said: str) -> None:
    train = yolo(tmp_path, "1 0.5 0.5 0.5 0.2")
    Path(train).write_bytes(b"train: images/train\n" + text)
    with pytest.raises(DataError, match=said):
        opened(train=train)


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    train = Path(coco(tmp_path / "train.json"))
    train.write_bytes(b"\xef\xbb\xbf" + train.read_bytes())
    assert len(opened(train=str(train))) == 2


def test_a_check_sees_annotations_of_another_size_and_shows_boxes(tmp_path: Path) -> None:
    sized: list[dict[str, Any]] = [
        {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
        {"id": 9, "file_name": "b.png", "width": 80, "height": 30},
    ]
    found = survey_split(opened(train=coco(tmp_path / "train.json", images=sized)))
    count, said = found.faults["mislabelled"]
    assert count == 1 and "40x30 pixels, and its boxes are of 80x30" in said[0]
    assert [what for _, what, _ in found.first] == ["2 boxes (dog 1, cat 1)", "no box"]
