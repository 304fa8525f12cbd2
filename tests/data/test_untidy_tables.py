"""Tables as people have them: lists written as texts, words for nothing, names in two spellings."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ptft.data import open_split
from ptft.data.checks.check import inspect_splits
from ptft.data.checks.names import alike, odd_names
from ptft.data.checks.survey import survey_split
from ptft.data.fields.templates import printed_texts
from ptft.data.held_out import groups_of
from ptft.data.sample import with_labels
from ptft.errors import DataError, RecipeError, SampleError
from ptft.recipe.check import SplitUse
from ptft.recipe.data import FolderData, TableData
from tests.support.shards import picture
from tests.support.tables import picture_table


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ('["a 0", "b"]', ["a 0", "b"]),
        ('["x", null]', ["x", None]),
        ("[]", []),
        ("['a 0', 'b']", ["a 0", "b"]),
        (
            r"['it\'s', "
            '"it\'s"]',
            ["it's", "it's"],
        ),
        ("['a 0' 'b'\n 'c']", ["a 0", "b", "c"]),  # an array, which Python would join
        ("['x', nan, None]", ["x", None, None]),
        (r"['\d']", [r"\d"]),
        ("[1, 2]", None),
        ("['a', 1]", None),
        ("[untitled]", None),
        ("['a''b']", None),
        ("['a'] and ['b']", None),
        ("a ['b']", None),
    ],
)
def test_a_list_that_was_written_as_a_text(text: str, entries: list[str | None] | None) -> None:
    assert printed_texts(text) == entries


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_list_as_a_text_is_several_captions(tmp_path: Path, form: str) -> None:
    rows = [{"text": "['a cat', 'one']"}, {"text": '["b", null]'}, {"text": "[draft]"}]
    section = FolderData(train=picture_table(tmp_path / "a", [*rows, {"text": "[]"}], form))
    samples = open_split(section, "train")
    found = [samples.captions(number) for number in range(3)]
    assert found == [("a cat", "one"), ("b",), ("[draft]",)]
    with pytest.raises(SampleError, match=r"3\.png: .*empty"):
        samples.captions(3)


def test_a_column_of_fractions_is_no_class(tmp_path: Path) -> None:
    rows = [{"kind": text} for text in ("1", "0.52", "2.0", "3e-1")]
    folder = picture_table(tmp_path / "a", rows)
    with pytest.raises(DataError, match=r"1\.png: label 0\.52 is a fraction, and all others are"):
        open_split(FolderData(train=folder, label="kind"), "train")
    listed = FolderData(train=folder, label="kind", classes=["1", "0.52", "2.0", "3e-1"])
    assert open_split(listed, "train").labels() is not None
    mixed = picture_table(tmp_path / "b", [{"kind": "v1.5"}, {"kind": "0.52"}])
    assert open_split(FolderData(train=mixed, label="kind"), "train").classes == ["0.52", "v1.5"]


def test_a_number_of_thousands_of_digits_is_a_name(tmp_path: Path) -> None:
    section = FolderData(
        train=picture_table(tmp_path / "a", [{"kind": "7" * 5000}, {"kind": "1"}]), label="kind"
    )
    assert len(open_split(section, "train").classes or ()) == 2


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_numbers_beside_a_training_set_of_digits_may_be_either(tmp_path: Path, form: str) -> None:
    train = picture_table(tmp_path / "train", [{"kind": str(n)} for n in (1, 2, 3, 4)], form)
    val = picture_table(tmp_path / "val", [{"kind": n} for n in (1, 2, 3)], form)
    section = FolderData(train=train, val=val, label="kind")
    with pytest.raises(DataError, match="the number 1 may be the class named '1' or class number"):
        open_split(section, "val")
    years = picture_table(tmp_path / "years", [{"kind": n} for n in (1, 2, 4)], form)
    fits = FolderData(train=train, val=years, label="kind", classes=["1", "2", "3", "4", "5"])
    assert open_split(fits, "val").labels() is not None


def test_a_column_of_one_name_twice(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/0.png").write_bytes(picture(0))
    columns = [pa.array(["0.png"]), pa.array(["a"]), pa.array(["b"])]
    table = pa.Table.from_arrays(columns, names=["file_name", "kind", "kind"])
    pq.write_table(table, tmp_path / "a/metadata.parquet")
    with pytest.raises(DataError, match=r"metadata\.parquet: two columns are named 'kind'"):
        open_split(FolderData(train=str(tmp_path / "a"), label="kind"), "train")


def test_names_that_people_read_as_one() -> None:
    assert alike(["Ant", "ant", "bee"]) == [["Ant", "ant"]]
    spaces = [
        "running shoe",
        "running  shoe",
        "running_shoe",
        "running\xa0shoe",
        "run\xadning-shoe",
    ]
    assert alike([*spaces, "running\u200bshoe"]) == [[*spaces, "running\u200bshoe"]]
    assert alike(["1", "01", "+1", "1.0", "-1", "10", "c", "c++"]) == [["1", "01", "+1", "1.0"]]
    assert alike(["-0", "0", "-", "--"]) == [["-0", "0"]]
    (said,) = odd_names(["nan", "N/A", "cat"])
    assert said.startswith("a class is called 'nan', 'N/A'")
    assert odd_names(["nano", "Namibia"]) == []


def test_captions_that_are_words_for_nothing_are_counted(tmp_path: Path) -> None:
    rows = [{"text": text} for text in ("a", "nan", "NULL", "banana")]
    survey = survey_split(
        open_split(FolderData(train=picture_table(tmp_path / "a", rows)), "train")
    )
    assert survey.nothing == (2, "nan")


def test_a_row_without_its_label_says_so(tmp_path: Path) -> None:
    folder = picture_table(tmp_path / "a", [{"kind": "ant"}, {"kind": ""}])
    samples = open_split(FolderData(train=folder, label="kind"), "train")
    with pytest.raises(SampleError, match=r"^1\.png: no label in 'kind', nor a caption: no field"):
        samples.describe(1)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"file_name": 3}, "row 1: file_name is 3; allowed: a path inside the folder"),
        ({"file_name": None}, "row 1: file_name is None"),
        ({"File Name": "0.png"}, "'File Name' may be what is meant: call it file_name"),
        ({"image": "0.png"}, "'image' may be what is meant"),
        ({"other": "0.png"}, "no file_name; allowed: a path inside the folder; columns: other"),
        ({"file_name": "a\\..\\0.png"}, "leaves the folder, or has .. in it"),
    ],
)
def test_a_table_that_names_no_picture(tmp_path: Path, row: dict[str, Any], part: str) -> None:
    (tmp_path / "0.png").write_bytes(picture(0))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({**row, "text": "a"}))
    with pytest.raises(DataError) as caught:
        open_split(FolderData(train=str(tmp_path)), "train")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "name", ["A b/0.PNG", "A b/0.jpg", "A b/0.png ", "a_b/0.png", "A b\\0.Png"]
)
def test_an_absent_picture_has_a_near_miss(tmp_path: Path, name: str) -> None:
    (tmp_path / "A b").mkdir()
    for number in range(3):
        (tmp_path / f"A b/{number}.png").write_bytes(picture(number))
    rows = [{"file_name": n, "text": n} for n in (name, "A b/1.png", "none.png")]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (problem,) = survey_split(open_split(FolderData(train=str(tmp_path)), "train")).problems(0.0)
    assert "pictures are absent" in problem
    assert "otherwise than it lies there: 1 (first: " in problem
    assert (
        "there is A b/0.png)" in problem and "none.png" not in problem.partition("first: ")[2][20:]
    )


def _patients(root: Path, form: str = "csv", **values: Any) -> FolderData:
    rows = [{"text": f"scan {n}", "patient": f"p{n // 5}"} for n in range(40)]
    return FolderData(train=picture_table(root, rows, form), **values)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_hold_out_parts_no_group(tmp_path: Path, form: str) -> None:
    section = _patients(tmp_path / "a", form, group="patient", hold_out=0.25)
    parts = {split: open_split(section, split) for split in ("train", "val")}
    named = {split: {one.name(n) for n in range(len(one))} for split, one in parts.items()}
    assert len(named["train"]) == 30 and len(named["val"]) == 10  # each row stays a sample
    of = {split: {int(name[:-4]) // 5 for name in names} for split, names in named.items()}
    assert not of["train"] & of["val"] and len(of["val"]) == 2
    assert set(groups_of(parts["val"]) or ()) == {f"p{number}" for number in of["val"]}


def test_a_group_and_a_picture_hold_together_what_they_join(tmp_path: Path) -> None:
    """Rows 0 and 1 are of one patient, 1 and 2 show one picture: all three are on one side."""
    rows = [{"kind": "ab"[n % 2], "patient": f"p{max(n, 1)}"} for n in range(12)]
    folder = picture_table(tmp_path / "a", rows)
    Path(folder, "2.png").write_bytes(picture(1))
    for share in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        section = FolderData(train=folder, label="kind", group="patient", hold_out=share)
        samples = open_split(section, "train")
        names = {samples.name(number) for number in range(len(samples))}
        assert len(names & {"0.png", "1.png", "2.png"}) in (0, 3)


def test_groups_that_training_has_too_are_told(tmp_path: Path) -> None:
    train = _patients(tmp_path / "a").train
    rows = [{"text": f"other {n}", "patient": p} for n, p in enumerate(("p3 ", "p3", "new"))]
    val = picture_table(tmp_path / "b", rows)
    for number in range(3):
        Path(val, f"{number}.png").write_bytes(picture(100 + number))
    uses = [
        SplitUse("data", FolderData(train=train, val=val, group="patient"), split, None)
        for split in ("train", "val")
    ]
    warnings = inspect_splits(uses, None).warnings
    assert any("data.val: 2 of 3 samples are of a group that data.train has" in w for w in warnings)


@pytest.mark.parametrize("key", ["group", "picture_id"])
def test_a_field_that_no_row_has_is_refused(tmp_path: Path, key: str) -> None:
    section = _patients(tmp_path / "a", **{key: "patiant"}, hold_out=0.25)
    with pytest.raises(DataError, match=rf"data\.{key}: 'patiant': no sample .*mean 'patient'"):
        open_split(section, "train")


def test_rows_that_are_joined_and_show_other_pictures_are_told(tmp_path: Path) -> None:
    samples = open_split(_patients(tmp_path / "a", picture_id="patient"), "train")
    (said,) = [line for line in samples.notes(1) if "data.picture_id" in line]
    assert "32 of 32 joined rows looked at have another picture" in said and "data.group" in said


def test_a_hold_out_that_leaves_nothing_says_its_key(tmp_path: Path) -> None:
    section = _patients(tmp_path / "a", hold_out=0.999)
    with pytest.raises(RecipeError, match=r"data\.hold_out: 0\.999: holds every sample out of 40"):
        open_split(section, "train")


@pytest.mark.parametrize("labels", [[[0, 1], [1, 0], [1, 1]], [[True, False], [False, False]]])
def test_a_flag_for_each_class_is_no_list_of_labels(tmp_path: Path, labels: list[Any]) -> None:
    rows = [{"kind": label} for label in labels]
    section = FolderData(
        train=picture_table(tmp_path / "a", rows, "jsonl"), label="kind", labels="many"
    )
    with pytest.raises(DataError, match=r"every list has 2 entries, each 0 or 1 or a boolean"):
        open_split(section, "train")


@pytest.mark.parametrize("separator", [None, "|"])
def test_a_separator_that_was_forgotten_is_told(tmp_path: Path, separator: str | None) -> None:
    rows = [{"kind": text} for text in ("a;b", "a", "c;b")]
    section = FolderData(
        train=picture_table(tmp_path / "a", rows),
        label="kind",
        labels="many",
        label_separator=separator,
    )
    said = open_split(section, "train").notes(1)
    assert any("no sample has several classes, and 2 are called such as 'a;b'" in s for s in said)


def test_a_packed_table_says_so(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(gzip.compress(b"file_name,text\n0.png,a\n"))
    with pytest.raises(DataError, match=r"metadata\.csv: packed by gzip"):
        open_split(FolderData(train=str(tmp_path)), "train")


def test_samples_without_a_class_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"kind": kind} for kind in ("a", "b", "", "a", "")]
    section = FolderData(train=picture_table(tmp_path / "a", rows), label="kind", resample="class")
    samples = open_split(section, "train")
    kept, said = with_labels(samples)
    assert kept.resample == "class"
    assert [kept.name(n) for n in range(len(kept))] == ["0.png", "1.png", "3.png"]
    assert said == ["left out: 2 of 5 samples have no class"]
    assert with_labels(kept) == (kept, [])


def test_files_of_one_table_have_one_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,kind\nred,a\nblue,b\n")
    (tmp_path / "b.csv").write_text("kind,text\na,green\n")
    (tmp_path / "c.csv").write_text("text,kind\n")
    section = TableData(train=[str(tmp_path / f"{n}.csv") for n in "abc"], image=None, label="kind")
    assert len(open_split(section, "train")) == 3
    (tmp_path / "c.csv").write_text("grey,b\nblack,a\n")
    with pytest.raises(
        DataError, match=r"c\.csv: b is a column of one of it and .*a\.csv; allowed"
    ):
        open_split(section, "train")
