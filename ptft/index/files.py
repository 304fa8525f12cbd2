"""The folder of an index: written whole, held to its record when it is read, searched by blocks.

- ``index.json``: the model's name and digest, the precision of its towers, how many rows of which
  width, and the digest of every other file.
- ``embeddings.safetensors``: ``embeddings``, float32 (N, D), each of length 1.
- ``rows.jsonl``: a line of JSON a row: ``name``, and ``thumbnail``, first byte and length, where
  there is one.
- ``thumbnails.bin``: JPEGs, one behind the other; only where they were asked for.

Embeddings are mapped, not read: an index may be larger than memory. Letters in shapes: N rows, D
width of the embeddings.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ptft.artifact import PRECISIONS, read_json, write_json
from ptft.errors import ArtifactError, DigestError
from ptft.files.arrays import check_header
from ptft.files.atomic import shareable
from ptft.files.bounds import Bounds, parse_json, read_bytes
from ptft.files.digests import check_digests, file_digests
from ptft.model_record import MAX_WIDTH

__all__ = [
    "Index",
    "IndexInfo",
    "Nearest",
    "read_picture_index",
    "read_picture_index_info",
    "write_picture_index",
]

_FORMAT = 1
RECORD, EMBEDDINGS, ROWS, THUMBNAILS = (
    "index.json",
    "embeddings.safetensors",
    "rows.jsonl",
    "thumbnails.bin",
)
_NAME, _TENSOR = 4096, "embeddings"  # characters of a row's name; the tensor
_MOST_ROWS, _MOST_LINES = 2**27, 8 << 30  # rows; bytes of their lines
_THUMBNAIL = 1 << 20  # bytes of one
_BLOCK = 16_384  # rows that are scored at once: 32 MB at D = 512
_UNIT = 1e-3  # that a row's length may differ from 1


@dataclass(frozen=True)
class IndexInfo:
    """``index.json``.

    Attributes:
        model, digest: name and digest of the model folder that embedded the pictures.
        precision: of its towers.
        count: N, rows.
        dim: D, width of a row.
        files: name -> sha256 and size.
    """

    model: str
    digest: str
    precision: str
    count: int
    dim: int
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: int = _FORMAT


class Nearest(NamedTuple):
    """A row that was found."""

    row: int
    name: str
    cosine: float


class Index:
    """An index that is open.

    Args:
        info: its record.
        embeddings: float32 (N, D), mapped.
        rows: its N lines.
        thumbnails: the bytes of all, mapped, or None.
    """

    def __init__(
        self,
        info: IndexInfo,
        embeddings: NDArray[np.float32],
        rows: Sequence[dict[str, Any]],
        thumbnails: NDArray[np.uint8] | None,
    ) -> None:
        self.info = info
        self._embeddings = embeddings
        self._rows = rows
        self._thumbnails = thumbnails

    @property
    def nbytes(self) -> int:
        """That a search reads."""
        return int(self._embeddings.nbytes)

    def search(self, query: NDArray[np.float32], k: int) -> list[Nearest]:
        """The k rows of the highest cosine with a query (D,) of length 1, all rows looked at.

        Of equal ones the first row comes first.
        """
        best = np.empty(0, np.float32)
        places = np.empty(0, np.int64)
        for start in range(0, len(self._embeddings), _BLOCK):
            cosines = self._embeddings[start : start + _BLOCK] @ query
            best = np.concatenate([best, cosines])
            places = np.concatenate([places, np.arange(start, start + len(cosines))])
            order = np.argsort(-best, kind="stable")[:k]
            best, places = best[order], places[order]
        return [
            Nearest(int(row), self._rows[int(row)]["name"], float(cosine))
            for row, cosine in zip(places, best, strict=True)
        ]

    def thumbnail(self, row: int) -> bytes | None:
        """A JPEG, or None where the row has none."""
        span = self._rows[row].get("thumbnail")
        if span is None or self._thumbnails is None:
            return None
        return bytes(self._thumbnails[span[0] : span[0] + span[1]])


def write_picture_index(
    folder: Path,
    info: IndexInfo,
    embeddings: NDArray[np.float32],
    names: Sequence[str],
    thumbnails: Iterable[bytes] | None = None,
) -> IndexInfo:
    """Write an index; the folder appears when it is complete.

    Args:
        folder: not there yet.
        info: without ``files``, which are recorded here.
        embeddings: (N, D), each of length 1.
        names: of the N rows.
        thumbnails: N JPEGs.

    Returns:
        ``info`` with its files.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        save_file({_TENSOR: np.ascontiguousarray(embeddings, np.float32)}, beside / EMBEDDINGS)
        shareable(beside / EMBEDDINGS)
        lines: list[dict[str, Any]] = [{"name": name} for name in names]
        written = [EMBEDDINGS, ROWS]
        if thumbnails is not None:
            written.append(THUMBNAILS)
            with (beside / THUMBNAILS).open("wb") as stream:
                for line, picture in zip(lines, thumbnails, strict=True):
                    line["thumbnail"] = [stream.tell(), len(picture)]
                    stream.write(picture)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (beside / ROWS).write_text(text, encoding="utf-8")
        made = IndexInfo(**{**asdict(info), "files": file_digests(beside, written)})
        write_json(beside / RECORD, asdict(made))
        shareable(beside)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return made


def read_picture_index_info(folder: Path) -> IndexInfo:
    """The record of an index.

    Raises:
        ArtifactError: there is none, or it is not as it should be.
    """
    where = str(folder / RECORD)
    bounds = Bounds(read_json(folder / RECORD), where)
    known = tuple(IndexInfo.__dataclass_fields__)
    bounds.keys(known, known)
    bounds.whole("format", _FORMAT, _FORMAT)
    for key in ("model", "digest"):
        bounds.text(key, 500)
    bounds.choice("precision", PRECISIONS)
    bounds.whole("count", 1, _MOST_ROWS)
    bounds.whole("dim", 1, MAX_WIDTH)
    files = Bounds(bounds.values["files"], f"{where}: files")
    files.keys((EMBEDDINGS, ROWS, THUMBNAILS), (EMBEDDINGS, ROWS))
    for name, entry in files.values.items():
        held = Bounds(entry, f"{where}: files: {name}")
        held.keys(("sha256", "size"), ("sha256", "size"))
        held.text("sha256", 64)
        held.whole("size", 0, 2**48)
    return IndexInfo(**bounds.values)


def read_picture_index(folder: Path, *, digest: str, precision: str) -> Index:
    """Open an index for the model that it was made with.

    Args:
        digest: of the model folder that queries are embedded with.
        precision: of its towers.

    Raises:
        DigestError: it was made with another model, or its files were changed.
        ArtifactError: it is damaged.
    """
    info = read_picture_index_info(folder)
    if (info.digest, info.precision) != (digest, precision):
        raise DigestError(
            f"{folder}: made with {info.digest} in {info.precision}; allowed: {digest} in "
            f"{precision}, since embeddings of two models do not compare (ptft index makes one)"
        )
    held = check_digests(folder, info.files, record=RECORD, remember=True)
    embeddings = _map(folder / EMBEDDINGS, info)
    most = info.files[THUMBNAILS]["size"] if THUMBNAILS in info.files else 0
    rows = _read_rows(folder / ROWS, info.count, most)
    thumbnails = np.memmap(folder / THUMBNAILS, np.uint8, "r") if most else None
    held.check_unchanged()
    return Index(info, embeddings, rows, thumbnails)


def _map(path: Path, info: IndexInfo) -> NDArray[np.float32]:
    header = check_header(path)
    entry = header.get(_TENSOR)
    if entry is None or entry["dtype"] != "F32" or entry["shape"] != [info.count, info.dim]:
        raise ArtifactError(
            f"{path}: allowed: one tensor, {_TENSOR}, F32 of {info.count} x {info.dim}"
        )
    with path.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little") + entry["data_offsets"][0]
    rows = np.memmap(path, np.dtype("<f4"), "r", start, (info.count, info.dim))
    for first in range(0, info.count, _BLOCK):
        lengths = np.linalg.norm(rows[first : first + _BLOCK], axis=1)
        bad = np.flatnonzero(~(np.abs(lengths - 1.0) <= _UNIT))
        if len(bad):
            row = first + int(bad[0])
            raise ArtifactError(f"{path}: row {row} has length {lengths[bad[0]]:g}; allowed: 1")
    return rows


def _read_rows(path: Path, count: int, most: int) -> list[dict[str, Any]]:
    """``most``: bytes of the thumbnails."""
    lines = read_bytes(path, limit=_MOST_LINES, error=ArtifactError).splitlines()
    if len(lines) != count:
        raise ArtifactError(f"{path}: {len(lines)} lines; allowed: {count}, one a row")
    found = []
    for number, line in enumerate(lines, 1):
        where = f"{path}: line {number}"
        bounds = Bounds(parse_json(line, where, error=ArtifactError), where)
        bounds.keys(("name", "thumbnail"), ("name",))
        bounds.text("name", _NAME)
        if (span := bounds.values.get("thumbnail")) is not None:
            if not isinstance(span, list) or len(span) != 2:
                bounds.refuse("thumbnail", span, "first byte and length")
            bounds.check_whole(span[0], "thumbnail", 0, most)
            bounds.check_whole(span[1], "thumbnail", 1, min(_THUMBNAIL, most - span[0]))
        found.append(bounds.values)
    return found
