"""Folders that ``datasets`` saved, made wrong as somebody might."""

import json
import struct
from pathlib import Path

import pyarrow
import pytest

from ptft.data.sources.hub_rows import open_rows
from ptft.data.sources.saved_rows import check_saved
from ptft.errors import ArtifactError, DataError

datasets = pytest.importorskip("datasets")

ROWS = {"text": [f"caption {i}" for i in range(40)], "image": [bytes([i]) * 50 for i in range(40)]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "saved"
    datasets.Dataset.from_dict(ROWS).save_to_disk(str(place))
    return place


def _open(folder: Path) -> object:
    return open_rows(
        str(folder), key="data.train", split="train", wanted=None, revision=None, streaming=False,
        window=1,
    )  # fmt: skip


def _stream(folder: Path) -> Path:
    return next(folder.glob("*.arrow"))


def _write(path: Path, table: pyarrow.Table, **options: object) -> None:
    with pyarrow.ipc.new_stream(
        str(path), table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)
    ) as writer:
        writer.write_table(table)


def _read(path: Path) -> pyarrow.Table:
    with pyarrow.OSFile(str(path)) as file:
        return pyarrow.ipc.open_stream(file).read_all()


def test_an_honest_folder_is_read(folder: Path) -> None:
    check_saved(folder)
    assert len(_open(folder)) == 40


def test_splits_are_held_each(tmp_path: Path) -> None:
    both = datasets.DatasetDict(train=datasets.Dataset.from_dict(ROWS))
    both.save_to_disk(str(tmp_path / "both"))
    assert len(_open(tmp_path / "both")) == 40
    path = _stream(tmp_path / "both/train")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="no Arrow stream"):
        _open(tmp_path / "both")


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_buffers_that_state_their_own_size_are_refused(folder: Path, codec: str) -> None:
    path = _stream(folder)
    _write(path, _read(path), compression=codec)
    with pytest.raises(DataError, match="compressed buffers"):
        _open(folder)


def test_a_compressed_dictionary_is_refused(folder: Path) -> None:
    path = _stream(folder)
    table = pyarrow.table({"text": pyarrow.array(["a", "b"] * 500).dictionary_encode()})
    _write(path, table, compression="zstd")
    with pytest.raises(DataError, match="compressed buffers"):
        check_saved(folder)


def test_an_offset_that_leads_out_is_refused(folder: Path) -> None:
    path = _stream(folder)
    content = path.read_bytes()
    offsets = struct.pack("<40i", *(50 * i for i in range(1, 41)))  # of the pictures
    assert content.count(offsets) == 1
    wrong = struct.pack(
        "<40i", *(50 * i for i in range(1, 20)), 1 << 30, *(50 * i for i in range(21, 41))
    )
    path.write_bytes(content.replace(offsets, wrong))
    with pytest.raises(DataError, match="no sound Arrow table"):
        _open(folder)


@pytest.mark.parametrize("name", ["../elsewhere.arrow", "/etc/passwd", "a\\b.arrow", ".hidden"])
def test_a_name_that_leads_out_is_refused(folder: Path, name: str) -> None:
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(ArtifactError, match="no plain file name inside the folder"):
        _open(folder)


def test_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    path = _stream(folder)
    path.rename(tmp_path / "moved.arrow")
    path.symlink_to(tmp_path / "moved.arrow")
    with pytest.raises(DataError, match="or a link"):
        _open(folder)


@pytest.mark.parametrize("files", [None, 5, ["a"], [{"filename": 5}], [{}]])
def test_what_names_no_files_is_refused(folder: Path, files: object) -> None:
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = files
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="_data_files"):
        _open(folder)


def test_a_format_that_was_set_hides_nothing(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict(ROWS)
    dataset.set_format("numpy", columns=["text"])
    dataset.save_to_disk(str(tmp_path / "set"))
    rows = _open(tmp_path / "set")
    rows.use("image", ["text"])
    assert (rows.picture(3), rows.fields(3)) == (ROWS["image"][3], {"text": "caption 3"})
