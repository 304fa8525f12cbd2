"""Safetensors files of somebody else's: what a header declares is there before memory is taken."""

import math
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptft.errors import ArtifactError, PtftError
from ptft.files.bounds import Bounds, parse_json
from ptft.files.own import check_filled, open_plain

__all__ = ["NUMPY", "check_header", "read_arrays", "read_metadata"]

MAX_HEADER = 100_000_000  # bytes; the library's own bound
_MAX_RANK = 16
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
    "C64": 64,
}  # fmt: skip
NUMPY = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "U16": np.uint16,
    "F16": np.float16, "I32": np.int32, "U32": np.uint32, "F32": np.float32, "F64": np.float64,
    "I64": np.int64, "U64": np.uint64,
}  # fmt: skip


def check_header(path: Path, *, error: type[PtftError] = ArtifactError) -> dict[str, Any]:
    """The header of a safetensors file: name -> dtype, shape, data_offsets; and ``__metadata__``.

    Raises:
        error: the file is absent, no such file, or has not the bytes that its header declares.
    """
    try:
        with BufferedReader(open_plain(path)) as stream:
            check_filled(stream.fileno(), path)
            size = stream.seek(0, 2)
            stream.seek(0)
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
                raise error(f"{path}: not a safetensors file: a header of {length} bytes of {size}")
            header = stream.read(length)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason}") from None
    where = f"{path}: not a safetensors file"
    top = Bounds(parse_json(header, where, error=error), where, error)
    metadata = top.values.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        top.refuse("__metadata__", metadata, "texts")
    end = size - 8 - length
    spans = [
        _span(Bounds(entry, f"{where}: {name[:80]!r}", error), end)
        for name, entry in top.values.items()
        if name != "__metadata__"
    ]
    place = 0
    for first, last in sorted(spans):  # each byte once: no two tensors share any, none is left over
        if first != place:
            raise error(f"{where}: a tensor at byte {first}; allowed: {place}")
        place = last
    if place != end:
        raise error(f"{where}: {place} bytes of tensors; the file has {end}")
    return top.values


def _span(entry: Bounds, end: int) -> tuple[int, int]:
    entry.keys(("dtype", "shape", "data_offsets"), ("dtype", "shape", "data_offsets"))
    entry.choice("dtype", _BITS)
    shape, offsets = entry.values["shape"], entry.values["data_offsets"]
    if not isinstance(shape, list) or len(shape) > _MAX_RANK:
        entry.refuse("shape", shape, f"a list of up to {_MAX_RANK} sizes")
    for side in shape:
        entry.check_whole(side, "shape", 0, 2**48)
    if not isinstance(offsets, list) or len(offsets) != 2:
        entry.refuse("data_offsets", offsets, "first and last byte")
    for offset in offsets:
        entry.check_whole(offset, "data_offsets", 0, end)
    wanted = math.prod(shape) * _BITS[entry.values["dtype"]] // 8
    if offsets[1] - offsets[0] != wanted:
        entry.refuse("data_offsets", offsets, f"{wanted} bytes, which its shape takes")
    return int(offsets[0]), int(offsets[1])


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a file.

    Raises:
        ArtifactError: it is absent or damaged, or has a type that numpy lacks.
    """
    header = check_header(path)
    header.pop("__metadata__", None)
    found: dict[str, NDArray[Any]] = {}
    with BufferedReader(open_plain(path)) as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        for name, entry in header.items():
            kind = NUMPY.get(entry["dtype"])
            if kind is None:
                raise ArtifactError(
                    f"{path}: {name[:80]!r}: {entry['dtype']}; allowed: {', '.join(NUMPY)}"
                )
            stream.seek(start + entry["data_offsets"][0])
            count = math.prod(entry["shape"])
            data = stream.read(count * np.dtype(kind).itemsize)
            # a copy may be written to, the file's bytes may not
            found[name] = np.frombuffer(data, kind).reshape(entry["shape"]).copy()
    return found


def read_metadata(path: Path, key: str) -> Any:
    """JSON that stands in a file's metadata.

    Raises:
        ArtifactError: there is none, or the file is damaged.
    """
    text = check_header(path).get("__metadata__", {}).get(key)
    if not isinstance(text, str):
        raise ArtifactError(f"{path}: __metadata__: {key}: missing")
    return parse_json(text, f"{path}: __metadata__: {key}", error=ArtifactError)
