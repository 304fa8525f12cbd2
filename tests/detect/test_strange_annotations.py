"""Annotations of somebody who wants something else than to mark pictures."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ptft.errors import DataError, SampleError
from tests.support.annotations import coco, opened, picture, voc, yolo

BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
BOMB = (
    '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'
    f"<annotation><filename>a.jpg</filename><object><name>&c;</name>{BOX}</object></annotation>"
)


def boxed(**changes: Any) -> dict[str, Any]:
    return {"annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], **changes}]}


def pictured(**changes: Any) -> dict[str, Any]:
    return {"images": [{"id": 7, "file_name": "a.png", **changes}], **boxed()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (pictured(file_name="a" * 5000), "no file's name"),
        (pictured(file_name="é" * 200), "no file's name"),
        (pictured(file_name="\ud800.png"), "no file's name"),
        (pictured(file_name="a\0.png"), "no file's name"),
        (pictured(file_name="C:\\a.png"), "leaves the folder"),
        ({"categories": [{"id": 3, "name": "b" * 5000}]}, "at most 4,096 characters"),
        ({"categories": [{"id": 3, "name": " \ufeff"}]}, "at most 4,096 characters"),
        ({"categories": [{"id": n, "name": f"{n // 2}"} for n in range(20_000)]}, "comes twice"),
        ({"info": [[]] * 100_000}, "one for every 16 bytes"),
    ],
)
def test_coco_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        opened(train=coco(tmp_path / "train.json", **changes))
    assert len(str(error.value)) < 400


def test_two_lists_of_coco_under_one_key(tmp_path: Path) -> None:
    path = Path(coco(tmp_path / "train.json", **boxed()))
    text = path.read_text()
    path.write_text(text.rstrip()[:-1] + ', "annotations": []}')
    with pytest.raises(DataError, match="the key 'annotations' comes twice"):
        opened(train=str(path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (boxed(bbox=[10**400, 1, 5, 5]), "1 box not finite: left out (a.png)"),
        (boxed(bbox=[1e300, 1, 5, 1e308]), "1 box not finite: left out (a.png)"),
        (boxed(image_id="x" * 9000), "1 box of a picture that is not listed: left out ('xxx"),
        (pictured(width=10**400, height=10**400), "1 boxes of 2 classes"),
        (pictured(neg_category_ids=[[3], {}, None]), "1 boxes of 2 classes"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_numbers_that_cannot_be_meant(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    notes = opened(train=coco(tmp_path / "train.json", **changes)).notes(1)
    assert said in notes[0]
    assert len(notes[0]) < 400


def test_what_is_no_picture_is_not_waited_for_and_no_link_leads_out(tmp_path: Path) -> None:
    train = coco(tmp_path / "set" / "train.json")
    samples = opened(train=train)
    secret = tmp_path / "secret.png"
    picture(secret)
    for name in ("a.png", "b.png"):
        (tmp_path / "set" / "images" / name).unlink()
    (tmp_path / "set" / "images" / "a.png").symlink_to(secret)
    os.mkfifo(tmp_path / "set" / "images" / "b.png")
    for number, said in enumerate(("links to a place outside", "not a plain file")):
        with pytest.raises(SampleError, match=said):
            samples[number]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB.encode("utf-16"), "NUL bytes, as UTF-16 does"),
        (BOMB.encode(), "it declares entities"),
        (b"<annotation><filename>" + b"a" * 5000 + b"</filename></annotation>", "no file's name"),
        (b"<annotation><filename>..</filename></annotation>", "leaves the folder"),
        (b"<annotation>" + b"<a/>" * (1 << 20), "more than 4194304 bytes"),
        (f"<annotation><object><name>{'b' * 5000}</name></object></annotation>".encode(), "4,096"),
        (b'<?xml version="1.0" encoding="hex"?><annotation/>', "not XML"),
    ],
)
def test_xml_is_refused_in_one_line(tmp_path: Path, text: bytes, said: str) -> None:
    train = voc(tmp_path, [("RBC", 0, 1, 2, 11, 12)])
    (tmp_path / "Annotations" / "a.xml").write_bytes(text)
    with pytest.raises(DataError, match=said) as error:
        opened(train=train)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_digits_of_other_scripts_are_no_size(tmp_path: Path) -> None:
    size = "<size><width>²</width><height>3</height></size>"
    assert len(opened(train=voc(tmp_path, [("RBC", 0, 1, 2, 11, 12)], size=size))) == 1


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("path: {0}\ntrain: a.png", "no such folder or file in"),
        ("train: {0}", "no such folder or file in"),
        ("train: ../../elsewhere", "no such folder or file in"),
        ("train: {1}", "no such folder or file in"),
        ("train: list.txt", r"'\.\./elsewhere/a\.png' leads out of .*data\.images"),
        ("train: images/train\nnames: {{0: cat, b: dog}}", "allowed: 0, 1, 2"),
    ],
)
def test_yolo_names_no_place_outside(tmp_path: Path, written: str, said: str) -> None:
    picture(tmp_path / "elsewhere" / "a.png")
    train = yolo(tmp_path / "set", "0 0.5 0.5 0.1 0.1")
    (tmp_path / "set" / "list.txt").write_text("../elsewhere/a.png\n")
    text = written.format(tmp_path / "elsewhere", "a" * 5000)
    names = "" if "names:" in written else "\nnames: [cat, dog]"
    Path(train).write_text(f"{text}{names}\n")
    with pytest.raises(DataError, match=said):
        opened(train=train)


def test_the_recipe_may_say_where_yolo_pictures_are(tmp_path: Path) -> None:
    yolo(tmp_path / "set", "0 0.5 0.5 0.1 0.1")
    elsewhere = tmp_path / "data.yaml"
    elsewhere.write_text("path: /content/set\ntrain: images/train\nnames: [cat, dog]\n")
    assert len(opened(train=str(elsewhere), images=str(tmp_path / "set"))) == 1


def test_numbers_of_yolo_that_no_place_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class a number of 13285 bits"):
        opened(train=yolo(tmp_path, "1" * 4000 + " 0.5 0.5 0.1 0.1"))
    assert json.dumps(opened(train=yolo(tmp_path, "0 -1e39 0.5 0.1 0.1")).notes(1)).count("finite")
