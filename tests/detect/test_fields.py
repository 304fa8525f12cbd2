"""Boxes in columns of tables, in metadata of folders and in shards."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from pydantic import ValidationError

from ptft.data import SampleSet, open_split
from ptft.data.boxes.box import BoxTally
from ptft.data.boxes.objects import read_field
from ptft.data.boxes.read import read_marked
from ptft.data.packing.pack import PackSettings, pack
from ptft.errors import DataError, UsageError
from ptft.preprocess import ImagePreprocess
from ptft.recipe.data import FolderData, ShardsData, TableData

SIZE = (40, 30)
XYWH = [[25.0, 5.0, 12.0, 10.0], [0.0, 0.0, 4.0, 4.0]]
XYXY = [[25.0, 5.0, 37.0, 15.0], [0.0, 0.0, 4.0, 4.0]]


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", SIZE, (200, 10, 10)).save(stream, "png")
    return stream.getvalue()


def table(path: Path, objects: list[Any], *, schema: Any = None, **columns: Any) -> str:
    rows = [{"image": {"bytes": picture()}, "objects": cell} for cell in objects]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    made = pyarrow.Table.from_pylist(rows)
    if schema is not None:
        written = json.dumps({"info": {"features": {"objects": schema}}})
        made = made.replace_schema_metadata({"huggingface": written})
    pyarrow.parquet.write_table(made, path)
    return str(path)


def opened(train: str, split: str = "train", **section: Any) -> SampleSet:
    return open_split(TableData(train=train, boxes="objects", **section), split)  # type: ignore[arg-type]


def corners(samples: SampleSet, index: int = 0) -> list[list[float]]:
    return read_marked(samples[index], ImagePreprocess()).boxes.corners.tolist()


@pytest.mark.parametrize(("written", "form"), [(XYWH, "xywh"), (XYXY, "xyxy")])
def test_what_the_numbers_are_is_told_by_all_of_them(
    tmp_path: Path, written: list[list[float]], form: str
) -> None:
    """Twelve and ten, taken for a corner, would lie left of the other; 37 and 15, taken for a size,
    beyond the picture."""
    cells = [{"bbox": written, "category": ["cell", "dust"]}, {"bbox": [], "category": []}]
    samples = opened(table(tmp_path / "a.parquet", [*cells, None]))
    assert corners(samples) == XYXY
    assert samples.box_classes == ["cell", "dust"]
    assert samples[0].boxes is not None and samples[0].boxes.labels.tolist() == [0, 1]
    assert corners(samples, 1) == corners(samples, 2) == []
    assert samples[0].captions == () and samples[0].label is None
    assert samples.notes(1)[:2] == [
        "2 boxes of 2 classes (cell 1, dust 1); 2 pictures without any",
        f"boxes are read as {form}, in pixels",
    ]


def test_shares_are_told_from_pixels_and_centres_from_corners(tmp_path: Path) -> None:
    shares = [[0.5, 1 / 3, 0.5, 1 / 3], [0.95, 0.95, 0.1, 0.1]]
    cell = {"bbox": shares, "category": ["a", "a"]}
    samples = opened(table(tmp_path / "a.parquet", [cell]))
    assert samples.notes(1)[1] == "boxes are read as cxcywh, in shares of the picture"
    assert corners(samples)[0] == pytest.approx([10, 5, 30, 15])
    assert corners(samples)[1] == pytest.approx([36, 27, 40, 30])


def test_numbers_that_fit_both_are_asked_about(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [{"bbox": [[1.0, 1.0, 9.0, 9.0]], "category": ["a"]}])
    with pytest.raises(DataError, match=r"fit more than one format .* allowed: data.box_format"):
        opened(path)
    assert corners(opened(path, box_format="xywh")) == [[1, 1, 10, 10]]
    assert corners(opened(path, box_format="xyxy")) == [[1, 1, 9, 9]]


def test_categories_are_named_by_the_schema_by_the_recipe_or_not_at_all(tmp_path: Path) -> None:
    cell = {"bbox": XYWH, "category": [1, 0]}
    schema = {"feature": {"bbox": {}, "category": {"names": ["dust", "cell"]}}}
    named = opened(table(tmp_path / "a.parquet", [cell], schema=schema))
    assert named.box_classes == ["dust", "cell"]
    other = opened(str(tmp_path / "a.parquet"), classes=["cell", "dust", "gap"])
    assert other.box_classes == ["cell", "dust", "gap"]
    assert other[0].boxes is not None and other[0].boxes.labels.tolist() == [0, 1]
    plain = table(tmp_path / "b.parquet", [cell])
    with pytest.raises(DataError, match=r"category 1: a number, and nobody says .* data.classes"):
        opened(plain)
    with pytest.raises(DataError, match=r"category 1; allowed: 0 to 0"):
        opened(plain, classes=["one"])
    found = opened(plain, classes=["dust", "cell"])[0].boxes
    assert found is not None and found.labels.tolist() == [1, 0]


def test_faults_are_named_and_counted(tmp_path: Path) -> None:
    good = {"bbox": [[25.0, 5.0, 8.0 + n / 32, 10.0] for n in range(120)], "category": ["a"] * 120}
    bad = {"bbox": [[0.0, 0.0, 0.0, 4.0]], "category": ["a"]}
    samples = opened(table(tmp_path / "a.parquet", [good, bad]))
    assert samples.notes(1)[0] == "1 box without area: left out (a.parquet/0/1)"
    uneven = table(tmp_path / "b.parquet", [{"bbox": XYWH, "category": ["a"]}])
    with pytest.raises(
        DataError, match=r"b.parquet/0/0: 2 bbox, 1 category; allowed: lists of one"
    ):
        opened(uneven)
    three = table(tmp_path / "c.parquet", [{"bbox": [[1.0, 2.0, 3.0]], "category": ["a"]}])
    with pytest.raises(DataError, match=r"box 0: bbox: .* allowed: four numbers"):
        opened(three)
    with pytest.raises(DataError, match=r"data.boxes: 'things': no such column"):
        open_split(TableData(train=three, boxes="things"), "train")


def test_a_picture_of_another_size_than_its_boxes_is_refused(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.parquet",
        [{"bbox": [[100.0, 50.0, 80.0, 40.0]], "category": ["a"]}],
        width=[200],
        height=[150],
    )
    with pytest.raises(Exception, match=r"40x30 pixels, and its boxes are of 200x150"):
        corners(opened(path))


def test_another_split_has_the_numbers_of_the_training_set(tmp_path: Path) -> None:
    train = table(tmp_path / "a.parquet", [{"bbox": XYWH, "category": ["cell", "dust"]}])
    val = table(tmp_path / "b.parquet", [{"bbox": XYWH, "category": ["dust", "dust"]}])
    samples = opened(train, "val", val=val)
    assert samples.box_classes == ["cell", "dust"]
    assert samples[0].boxes is not None and samples[0].boxes.labels.tolist() == [1, 1]


def test_shards_and_folders_have_them_too(tmp_path: Path) -> None:
    cell = [
        {"bbox": XYWH[0], "category": "cell", "iscrowd": 1},
        {"bbox": XYWH[1], "category": "dust"},
    ]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (
            ("0.png", picture()),
            ("0.json", json.dumps({"objects": cell, "width": 40, "height": 30}).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    section = ShardsData(train=str(tmp_path / "a.tar"), boxes="objects")
    shards = open_split(section, "train")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "0.png").write_bytes(picture())
    line = json.dumps({"file_name": "0.png", "objects": cell})
    (tmp_path / "folder" / "metadata.jsonl").write_text(line + "\n")
    folder = open_split(FolderData(train=str(tmp_path / "folder"), boxes="objects"), "train")
    for samples in (shards, folder):
        assert corners(samples) == XYXY
        assert samples[0].boxes is not None
        assert samples[0].boxes.crowd.tolist() == [True, False]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"boxes": "objects", "label": "kind"}, "beside label: 'kind'; allowed: one of them"),
        ({"box_format": "xywh"}, "box_format: 'xywh' without boxes; allowed: auto"),
        ({"boxes": "objects", "streaming": True}, "allowed: streaming: false"),
    ],
)
def test_what_does_not_go_together_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TableData(train="a.parquet", **section)


def test_packing_refuses_what_would_leave_boxes_behind(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [{"bbox": XYWH, "category": ["dust", "cell"]}])
    section = TableData(train=path, boxes="objects")
    with pytest.raises(UsageError, match="packing makes pictures smaller"):
        pack(section, tmp_path / "packed", PackSettings(short_side=32), workers=0)


@pytest.mark.parametrize(
    ("box", "category"),
    [([0, 0, 10**400, 5], "cell"), ([float("nan"), 0, 4, 4], "cell")],
)
def test_numbers_beyond_any_picture_are_left_out_and_counted(
    tmp_path: Path, box: list[float], category: str
) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    marked = {"bbox": [*XYWH, box], "category": ["cell", "dust", category]}
    row = {"file_name": "a.png", "objects": marked}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    section = FolderData(train=str(tmp_path), boxes="objects", box_format="xywh")
    samples = open_split(section, "train")
    assert corners(samples) == XYXY
    assert any("1 box" in note for note in samples.notes(1)), samples.notes(1)


def test_one_number_that_is_none_does_not_make_shares_pixels(tmp_path: Path) -> None:
    shares = [[x / 40, y / 30, w / 40, h / 30] for x, y, w, h in XYWH]
    cell = {"bbox": [[float("nan")] * 4, *shares], "category": ["dust", "cell", "dust"]}
    samples = opened(table(tmp_path / "a.parquet", [cell]), box_format="xywh")
    assert "boxes are read as xywh, in shares of the picture" in samples.notes(1)


def test_a_class_has_the_bounds_of_any_other(tmp_path: Path) -> None:
    cell = {"bbox": XYWH, "category": ["cell", "x" * 5000]}
    with pytest.raises(DataError, match="a name of at most 4,096 characters"):
        opened(table(tmp_path / "a.parquet", [cell]))


@pytest.mark.parametrize("value", [5, True, 1.5, "abcd", {"a": 1}])
@pytest.mark.parametrize("key", ["bbox", "category", "iscrowd"])
def test_what_is_no_list_of_boxes_is_an_error(key: str, value: object) -> None:
    cell = {"bbox": [[1, 2, 3, 4]], "category": ["a"], "iscrowd": [0], key: value}
    with pytest.raises(DataError, match=f"a: {key}: .*; allowed: a list, of all boxes"):
        read_field(cell, "a", BoxTally())
