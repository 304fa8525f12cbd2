"""What a label means, from every source: names are names, whole numbers places or names."""

import io
import json
import unicodedata
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ptft.data import SampleSet, open_split
from ptft.data.fields.label_values import read_label
from ptft.errors import DataError, SampleError
from ptft.recipe.data import FolderData, ShardsData, TableData
from tests.support.shards import picture, write_tar
from tests.support.tables import picture_table

NAN = float("nan")


def _folder(root: Path, labels: list[Any], form: str, **values: Any) -> FolderData:
    """A folder with a metadata table whose column ``kind`` holds the labels."""
    picture_table(root, [{"kind": label} for label in labels], form)
    return FolderData(train=str(root), label="kind", **values)


def _shards(root: Path, labels: list[Any], form: str, **values: Any) -> ShardsData:
    files: dict[str, bytes] = {}
    for number, label in enumerate(labels):
        files[f"{number}.png"] = picture(number)
        if form == "cls":
            files[f"{number}.cls"] = str(label).encode()
        else:
            files[f"{number}.json"] = json.dumps({"kind": label}).encode()
    root.mkdir(parents=True)
    more = {} if form == "cls" else {"label": "kind"}
    return ShardsData(train=str(write_tar(root / "t.tar", files)), **more, **values)


def _table(root: Path, labels: list[Any], form: str, **values: Any) -> TableData:
    root.mkdir(parents=True)
    rows = {"image": [picture(i) for i in range(len(labels))], "kind": labels}
    if form == "parquet":
        pq.write_table(pa.table(rows), root / "t.parquet")
        return TableData(train=str(root / "t.parquet"), label="kind", **values)
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows).save_to_disk(str(root / "disk"))
    return TableData(train=str(root / "disk"), label="kind", **values)


TYPED = [
    (_folder, "jsonl"),
    (_folder, "parquet"),
    (_shards, "json"),
    (_table, "parquet"),
    (_table, "disk"),
]
UNTYPED = [(_folder, "csv"), (_shards, "cls")]
KINDS = {"-".join((make.__name__[1:], form)): (make, form) for make, form in TYPED + UNTYPED}


def _names(samples: SampleSet) -> list[str | None]:
    labels, classes = samples.labels(), samples.classes
    assert labels is not None and classes is not None
    labelled = [number for number, label in enumerate(labels) if label >= 0]
    assert [samples.describe(number)[1] for number in labelled] == labels[labelled].tolist()
    return [None if label < 0 else classes[label] for label in labels]


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_reads_names_and_numbers_alike(tmp_path: Path, kind: str) -> None:
    make, form = KINDS[kind]
    names = open_split(make(tmp_path / "names", ["dog", " cat\n", "dog"], form), "train")
    assert names.classes == ["cat", "dog"] and _names(names) == ["dog", "cat", "dog"]
    natural = open_split(make(tmp_path / "numbers", [9, 2, 10], form), "train")
    assert natural.classes == ["2", "9", "10"] and _names(natural) == ["9", "2", "10"]
    places = open_split(
        make(tmp_path / "places", [2, 0, 1], form, classes=["x", "y", "z"]), "train"
    )
    assert _names(places) == ["z", "x", "y"]
    with pytest.raises(DataError, match=r"label 3 is not among the classes; allowed: 0 to 2"):
        open_split(make(tmp_path / "far", [3, 3, 3], form, classes=["x", "y", "z"]), "train")
    spelt = ["\ufeffété", unicodedata.normalize("NFD", "été"), "été "]
    alike = open_split(make(tmp_path / "nfd", spelt, form), "train")
    assert alike.classes == ["été"] and _names(alike) == ["été"] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_is_read_by_its_own_training_set(tmp_path: Path, kind: str) -> None:
    """Numbers are places in the names of train; where train has numbers, its numbers are names."""
    make, form = KINDS[kind]
    train = make(tmp_path / "train", [5, 2, 9], form)
    val = make(tmp_path / "val", [2, 9], form)
    both = train.model_copy(update={"val": val.train})
    assert _names(open_split(both, "val")) == ["2", "9"]
    # a model's names in another order
    assert _names(open_split(both, "val", classes=["9", "5", "2"])) == ["2", "9"]
    strange = make(tmp_path / "strange", [0, 0], form)
    with pytest.raises(DataError, match=r"val: .*label 0 .*not among the classes"):
        open_split(train.model_copy(update={"val": strange.train}), "val")
    named = make(tmp_path / "named", ["cat", "dog", "elk"], form)
    digits = named.model_copy(update={"val": make(tmp_path / "two", [2, 0], form).train})
    if (make, form) in UNTYPED:  # a text is a name, and such a file holds texts
        with pytest.raises(DataError, match=r"label '2' is not among the classes; .*cat, dog, elk"):
            open_split(digits, "val")
    else:
        assert _names(open_split(digits, "val")) == ["elk", "cat"]


@pytest.mark.parametrize("kind", ["folder-jsonl", "folder-parquet", "shards-json", "table-disk"])
@pytest.mark.parametrize("label", [[0], ["cat", "dog"], {"id": 1}, 0.5], ids=repr)
def test_what_is_no_label_is_refused_by_row_and_value(
    tmp_path: Path, kind: str, label: Any
) -> None:
    make, form = KINDS[kind]
    with pytest.raises(DataError) as caught:
        open_split(make(tmp_path / "x", [label, label], form), "train")
    said = str(caught.value)
    assert "data.label: 'kind'" in said and "allowed: one name or one whole number" in said
    assert repr(label) in said and "0" in said


@pytest.mark.parametrize("kind", ["folder-csv", "shards-cls", "table-parquet"])
@pytest.mark.parametrize("label", ["['dog', 'horse']", '["dog"]', "{'id': 1}", "a\nb"])
def test_lists_written_as_texts_are_refused(tmp_path: Path, kind: str, label: str) -> None:
    make, form = KINDS[kind]
    with pytest.raises(DataError, match=r"data\.label.*several classes a picture|is several lines"):
        open_split(make(tmp_path / "x", ["cat", label], form), "train")


def test_numbers_and_names_do_not_mix_unless_names_are_given(tmp_path: Path) -> None:
    mixed = _folder(tmp_path / "m", [1, "cat", 0], "jsonl")
    with pytest.raises(DataError, match=r"both numbers and names: 1 \(0\.png\) and 'cat' \(1\.png"):
        open_split(mixed, "train")
    listed = mixed.model_copy(update={"classes": ["dog", "cat"]})
    assert _names(open_split(listed, "train")) == ["cat", "cat", "dog"]
    digits = open_split(_folder(tmp_path / "d", [1, "0", 1.0, None], "jsonl"), "train")
    assert digits.classes == ["0", "1"] and _names(digits) == ["1", "0", "1", None]


def test_digits_among_listed_names_are_names(tmp_path: Path) -> None:
    for form in ("csv", "jsonl"):
        section = _folder(tmp_path / form, ["2", "0", "1"], form, classes=["2", "0", "1"])
        assert _names(open_split(section, "train")) == ["2", "0", "1"]
    codes = open_split(_folder(tmp_path / "codes", ["07", "7", "007"], "csv"), "train")
    assert codes.classes == ["007", "07", "7"]  # codes, not one number


def test_a_number_that_may_be_a_name_or_a_place_is_an_error(tmp_path: Path) -> None:
    section = _folder(tmp_path / "v", [1, 2], "parquet")
    foreign = FolderData(val=section.train, label="kind")
    with pytest.raises(DataError, match=r"number 1 may be the class named '1' or class number 1"):
        open_split(foreign, "val", classes=["0", "2", "1"])
    assert _names(open_split(foreign, "val", classes=["x", "y", "z"])) == ["y", "z"]
    assert _names(open_split(foreign, "val", classes=["0", "1", "2"])) == ["1", "2"]
    assert _names(open_split(foreign, "val", classes=["2", "1"])) == ["1", "2"]


def test_a_folder_of_digits_is_a_name_and_a_stranger_an_error(tmp_path: Path) -> None:
    for name in ("cat", "dog", "elk"):
        for number in range(40):
            path = tmp_path / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
    (tmp_path / "val" / "2").mkdir(parents=True)
    (tmp_path / "val" / "2" / "a.png").write_bytes(picture(1))
    section = FolderData(train=str(tmp_path / "train"), val=str(tmp_path / "val"))
    with pytest.raises(DataError, match=r"val: 2/a\.png: label '2' is not among the classes"):
        open_split(section, "val")
    listed = section.model_copy(update={"classes": ["cat", "dog", "elk"]})
    with pytest.raises(DataError, match="label '2' is not among the classes"):
        open_split(listed, "val")
    # one stranger among many is refused too: a folder is no slip of the pen
    for number in range(300):
        path = tmp_path / "val" / "cat" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number % 250))
    with pytest.raises(DataError, match="label '2' is not among the classes"):
        open_split(section, "val")


def _class_label(root: Path, names: list[str], rows: list[int], form: str) -> str:
    datasets.disable_progress_bars()
    kinds = {"image": datasets.Value("binary"), "kind": datasets.ClassLabel(names=names)}
    columns = {"image": [picture(i) for i in range(len(rows))], "kind": rows}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    root.mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        made.to_parquet(str(root / "t.parquet"))
        return str(root / "t.parquet")
    made.save_to_disk(str(root / "disk"))
    return str(root / "disk")


@pytest.mark.parametrize("form", ["parquet", "disk"])
def test_the_tables_own_names_are_what_its_numbers_mean(tmp_path: Path, form: str) -> None:
    names = ["0", "1", "10", "11", "2"]
    train = _class_label(tmp_path / "a", names, [2, 4, 0, -1], form)
    section = TableData(train=train, label="kind")
    samples = open_split(section, "train")
    assert samples.classes == names and _names(samples) == ["10", "2", "0", None]
    # val has the same names in another order, and so has a model
    other = _class_label(tmp_path / "b", ["2", "10", "1", "0", "11"], [0, 1, 3], form)
    val = open_split(section.model_copy(update={"val": other}), "val")
    assert val.classes == names and _names(val) == ["2", "10", "0"]
    model = open_split(TableData(val=train, label="kind"), "val", classes=["2", "10", "0", "x"])
    assert model.classes == ["2", "10", "0", "x"] and _names(model) == ["10", "2", "0", None]
    with pytest.raises(DataError, match=r"label 4 \('2'\) is not among the classes"):
        open_split(TableData(val=train, label="kind"), "val", classes=["10"])
    renamed = section.model_copy(update={"classes": ["a", "b", "c", "d", "e"]})
    assert _names(open_split(renamed, "train")) == ["c", "e", "a", None]
    sorted_ = section.model_copy(update={"classes": ["0", "1", "2", "10", "11"]})
    assert _names(open_split(sorted_, "train")) == ["10", "2", "0", None]
    with pytest.raises(DataError, match=r"own names have '10', which data\.classes lacks"):
        open_split(section.model_copy(update={"classes": ["0", "1", "2"]}), "train")


def test_a_metadata_table_has_names_of_its_own_too(tmp_path: Path) -> None:
    """As a class column of ``datasets`` is written beside pictures."""
    kinds = {"file_name": datasets.Value("string"), "kind": datasets.ClassLabel(names=["1", "0"])}
    columns = {"file_name": ["0.png", "1.png", "2.png"], "kind": [0, 1, -1]}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    made.to_parquet(str(tmp_path / "metadata.parquet"))
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    samples = open_split(FolderData(train=str(tmp_path), label="kind"), "train")
    assert samples.classes == ["1", "0"] and _names(samples) == ["1", "0", None]


def test_columns_of_every_type_are_names_or_numbers(tmp_path: Path) -> None:
    columns = {
        "categorical": (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        "numbers of a category": (pa.array([7, 3]).dictionary_encode(), ["7", "3"]),
        "bytes": (pa.array([b"b", b"a"]), ["b", "a"]),
        "numbers with gaps": (pa.array([1.0, NAN]), ["1", None]),
        "decimals": (pa.array([Decimal(4), Decimal(2)]), ["4", "2"]),
        "booleans": (pa.array([True, False]), ["True", "False"]),
        "small": (pa.array([1, 0], pa.uint8()), ["1", "0"]),
    }
    for what, (column, right) in columns.items():
        path = tmp_path / f"{what}.parquet"
        pq.write_table(pa.table({"image": [picture(0), picture(1)], "kind": column}), path)
        samples = open_split(TableData(train=str(path), label="kind"), "train")
        assert _names(samples) == right, what
    dates = pa.array([date(2026, 1, 1), date(2026, 1, 2)])
    pq.write_table(pa.table({"image": [picture(0)] * 2, "kind": dates}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"data\.label: 'kind': .*is date"):
        open_split(TableData(train=str(tmp_path / "d.parquet"), label="kind"), "train")


def test_a_list_of_classes_with_a_mark_is_the_same_list(tmp_path: Path) -> None:
    names = "été\nthé\n"
    (tmp_path / "classes.txt").write_bytes(
        b"\xef\xbb\xbf" + unicodedata.normalize("NFD", names).encode()
    )
    section = _shards(tmp_path / "s", ["\ufeffthé\n", "été"], "cls")
    listed = section.model_copy(update={"classes": str(tmp_path / "classes.txt")})
    samples = open_split(listed, "train")
    assert samples.classes == ["été", "thé"] and _names(samples) == ["thé", "été"]


def test_one_label_is_a_name_a_number_or_nothing() -> None:
    given = [" a\ufeff", b"a", "3", 3, 3.0, np.int64(3), np.str_("a"), NAN, "", None, True]
    right = ["a", "a", "3", 3, 3, 3, "a", None, None, None, "True"]
    assert [read_label(value, "s") for value in given] == right
    for wrong in (0.5, float("inf"), [1], {"a": 1}, b"\xff", io.BytesIO()):
        with pytest.raises(SampleError, match=r"^s: label .*allowed: one name"):
            read_label(wrong, "s")
