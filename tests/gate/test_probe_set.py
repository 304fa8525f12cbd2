"""A probe set is read whole, or refused by name."""

from pathlib import Path

import pytest

from ptft.errors import DataError, UsageError
from ptft.gate import open_probe_set, read_probe_set


def test_classes_are_folders(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/b.jpg", "dog/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "cat" / "notes.md").write_text("no picture")
    found = read_probe_set(tmp_path)
    assert found.names == ["cat/a.png", "cat/b.jpg", "dog/a.png"]
    assert (found.labels, found.classes) == (["cat", "cat", "dog"], ["cat", "dog"])
    assert found.pictures[2] == b"dog/a.png"


def test_as_a_config_map_is_mounted(tmp_path: Path) -> None:
    """Names are links into a hidden folder that has each file once more."""
    (tmp_path / "..2026" / "").mkdir()
    (tmp_path / "..data").symlink_to("..2026")
    for name, data in (("a.png", "1"), ("a.txt", "a cat\n\na dog\n"), ("b.png", "2")):
        (tmp_path / "..2026" / name).write_text(data)
        (tmp_path / name).symlink_to(f"..data/{name}")
    (tmp_path / "..2026" / "b.txt").write_text("b")
    (tmp_path / "b.txt").symlink_to("..data/b.txt")
    found = read_probe_set(tmp_path)
    assert (found.names, found.labels) == (["a.png", "b.png"], None)
    assert found.captions == [("a cat", "a dog"), ("b",)]


def test_a_table_with_captions(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "metadata.csv").write_text(
        '\ufefffile_name,text\na.png,"a cat, asleep"\na.png,kitten\n'
    )
    assert read_probe_set(tmp_path).captions == [("a cat, asleep", "kitten")]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file_name,label\n../a.png,cat\n", "row 1: file_name '../a.png' leaves the folder"),
        ("file_name,label\n/a.png,cat\n", "leaves the folder"),
        ("file_name,label\nb.png,cat\n", "b.png: no such file"),
        ("file_name,label\na.png,\n", "row 1: a.png: allowed: a label or a text"),
        ("file_name,label,text\na.png,cat,a cat\n", "allowed: a label or a text, one of both"),
        ("file_name,label\na.png,cat\na.png,dog\n", "a.png stands twice"),
        ("name,label\na.png,cat\n", "row 1: no file_name"),
        ("file_name,label,text\na.png,cat,\nb.png,,b\n", "b.png has no label, and a.png has one"),
        ("file_name,label\n", "no picture"),
    ],
)
def test_a_table_of_another_form(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "metadata.csv").write_text(table)
    with pytest.raises(DataError, match=said):
        read_probe_set(tmp_path)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"text": "a", "text": "b"}'])
def test_a_line_that_is_no_object_of_its_own(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="row 1: allowed: a JSON object a line"):
        read_probe_set(tmp_path)


def test_folders_of_another_form(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no picture; allowed: metadata\.csv or metadata\.jsonl"):
        read_probe_set(tmp_path)
    (tmp_path / "a.png").write_bytes(b"1")
    with pytest.raises(DataError, match=r"allowed: a caption in a\.txt, or a folder a class"):
        read_probe_set(tmp_path)
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(DataError, match=r"a\.txt: no caption in it"):
        read_probe_set(tmp_path)
    with pytest.raises(UsageError, match=r"--probe .*a\.png: a file; allowed"):
        open_probe_set(str(tmp_path / "a.png"))
    with pytest.raises(UsageError, match="no such folder"):
        open_probe_set(str(tmp_path / "absent"))
