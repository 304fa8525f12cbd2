"""Folders that ``datasets`` saved (``save_to_disk``), held before their buffers are read.

``datasets`` maps the Arrow streams of such a folder into memory and follows the offsets in them as
they are. Here the folder is held before it is opened (the files that it names are plain ones of its
own, no buffer says to unpack into more than it is), and the tables once they are mapped (every
offset, index and text). Pictures are not read for that: only where they begin and end.

Source: the Arrow columnar format, "IPC streaming format" and Message.fbs.
"""

import struct
from pathlib import Path
from typing import Any

from ptft.errors import DataError
from ptft.files.bounds import Bounds, check_names, parse_json, read_bytes
from ptft.printable import printable

__all__ = ["check_saved", "check_table"]

_STATE = "state.json"
_DICT = "dataset_dict.json"
_HEADER, _DATA, _COMPRESSION = 2, 1, 3  # fields of Message, DictionaryBatch and RecordBatch


def check_saved(folder: Path) -> None:
    """Hold the files of a folder, or of its splits', before ``datasets`` opens them.

    Raises:
        DataError: a file is absent, a link, no Arrow stream, or compressed.
        ArtifactError: a name is none of a file inside the folder.
    """
    for one in _parts(folder):
        path = one / _STATE
        state = Bounds(_json(path), str(path), error=DataError)
        files = state.values.get("_data_files")
        if not isinstance(files, list) or not all(isinstance(each, dict) for each in files):
            state.refuse("_data_files", files, "a list of objects with a filename")
        names = [each.get("filename") for each in files]
        if not all(isinstance(name, str) for name in names):
            state.refuse("_data_files", names, "file names")
        check_names(names, f"{path}: _data_files")
        for name in names:
            _check_stream(one / name)


def check_table(table: Any, folder: Path) -> None:
    """Hold every offset, index and text of a mapped ``datasets.table.Table``.

    Raises:
        DataError: what ``pyarrow`` says of the first that leads out of its buffer.
    """
    try:
        table.validate(full=True)
    except Exception as error:  # ArrowInvalid, ArrowIndexError, and what the mapping raises
        why = printable(str(error)).partition("\n")[0]
        raise DataError(f"{folder}: no sound Arrow table: {why}") from None


def _parts(folder: Path) -> list[Path]:
    path = folder / _DICT
    if not path.is_file():
        return [folder]
    bounds = Bounds(_json(path), str(path), error=DataError)
    splits = bounds.values.get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
        bounds.refuse("splits", splits, "names of folders")
    check_names(splits, f"{path}: splits")
    return [folder / name for name in splits]


def _json(path: Path) -> Any:
    return parse_json(read_bytes(path, error=DataError), path, error=DataError)


def _check_stream(path: Path) -> None:
    import pyarrow

    if path.is_symlink() or not path.is_file():
        raise DataError(f"{path}: no file, or a link; allowed: a plain file of the folder")
    try:
        with pyarrow.memory_map(str(path)) as stream:
            for message in pyarrow.ipc.MessageReader.open_stream(stream):
                metadata = message.metadata.to_pybytes()
                if message.type in ("record batch", "dictionary") and _compressed(
                    metadata, dictionary=message.type == "dictionary"
                ):
                    raise DataError(
                        f"{path}: compressed buffers, of a size that they state themselves; "
                        "allowed: plain ones, as save_to_disk writes them"
                    )
    except (pyarrow.ArrowException, OSError, struct.error) as error:
        why = printable(str(error)).partition("\n")[0]
        raise DataError(f"{path}: no Arrow stream: {why}") from None


def _compressed(metadata: bytes, *, dictionary: bool) -> bool:
    """Whether the batch of a message, a flatbuffer, has the field of compression."""
    table = _follow(metadata, 0)
    header = _field(metadata, table, _HEADER)
    if header is None:
        return False
    batch = _follow(metadata, header)
    if dictionary:
        data = _field(metadata, batch, _DATA)
        if data is None:
            return False
        batch = _follow(metadata, data)
    return _field(metadata, batch, _COMPRESSION) is not None


def _follow(data: bytes, place: int) -> int:
    (offset,) = struct.unpack_from("<I", data, place)
    return place + int(offset)


def _field(data: bytes, table: int, number: int) -> int | None:
    """Where field ``number`` of a table lies; None where it is not there."""
    (back,) = struct.unpack_from("<i", data, table)
    names = table - int(back)
    if names < 0:
        raise struct.error("a table whose fields lie before the message")
    (size,) = struct.unpack_from("<H", data, names)
    if 4 + 2 * number + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", data, names + 4 + 2 * number)
    return table + int(offset) if offset else None
