"""Where the samples of a WebDataset tar lie: read once, header by header, without reading data.

Nothing but the headers is touched, so that a tar of gigabytes is indexed in the time of a few
thousand small reads; afterwards any process reads any sample with one ``pread`` a member.
"""

import hashlib
import os
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ptft.data.fields.joining import digest_picture
from ptft.data.fields.templates import clean_text
from ptft.data.kept import PackedTexts
from ptft.errors import DataError
from ptft.files.own import open_plain
from ptft.files.picture_names import IMAGE_EXTENSIONS, PassedOver, is_hidden
from ptft.preprocess.decoding import MAX_PICTURE

__all__ = ["LABEL", "FileState", "TarIndex", "index_tar", "probe_tar"]

LABEL = 4096
"""Bytes of a ``cls`` that an index holds."""

FileState = tuple[int, int, int]
"""Size in bytes, time of change in ns and number of a file."""

_BLOCK = 512  # bytes; headers, and data padded to it (POSIX.1-1988 ustar)
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_PLAIN = (b"0", b"\0", b"7")  # type flags of plain files
_LINKS = (b"1", b"2", b"3", b"4", b"5", b"6")  # of links, devices and folders: they have no data
_META = 1 << 20  # bytes; a longer name than that is no name
_MOST = 2**63 - 1 - _BLOCK  # bytes; no file is larger, and sums of sizes stay numbers of 64 bits
_KINDS = 1 << 16  # distinct extensions; a number in ``kinds`` has 16 bits
_MAGIC = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}


@dataclass
class TarIndex:
    """The samples of one tar.

    Attributes:
        path: of the tar.
        keys: of the samples, in order.
        extensions: the distinct ones, lower case.
        starts: int64 (N + 1,); the members of sample ``i`` are ``starts[i]:starts[i + 1]``.
        kinds: uint16 (M,), the extension of each member as a number in ``extensions``.
        offsets, sizes: int64 (M,), of each member's data in bytes.
        size: of the tar in bytes.
        probe: what ``probe_tar`` gives, to tell another tar of the same size.
        labels: text of each sample's ``cls``, empty where it has none; None where no sample has
            one, or nobody asked.
        digests: uint8 (N, 16), of each sample's picture, zeros where it has none; None where nobody
            asked.
        passed_over: files that belong to no sample; known where the tar was walked.
        file: that the arrays are mapped from, and its state then; None where they are in memory.
    """

    path: Path
    keys: PackedTexts
    extensions: list[str]
    starts: np.ndarray
    kinds: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    size: int
    probe: str
    labels: PackedTexts | None = None
    digests: np.ndarray | None = None
    passed_over: PassedOver = field(default_factory=PassedOver)
    file: tuple[Path, FileState] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def picture_sizes(self) -> np.ndarray:
        """Sizes of the samples' pictures, int64 (N,), 0 where one has none."""
        ranks = {extension: rank for rank, extension in enumerate(IMAGE_EXTENSIONS)}
        none = len(ranks)
        rank_of = np.array([ranks.get(extension, none) for extension in self.extensions], np.int64)
        members = len(self.kinds)
        # the first of the best endings of each sample
        best = np.minimum.reduceat(
            rank_of[self.kinds] * members + np.arange(members), self.starts[:-1]
        )
        return np.where(best < none * members, self.sizes[best % members], 0)

    def without_label(self) -> np.ndarray:
        """Samples, int64, whose class ``labels`` leaves out: it is long, or may be in a JSON."""
        kinds = np.array([extension == "cls" for extension in self.extensions])
        jsons = np.array([extension == "json" for extension in self.extensions])
        is_cls, short = kinds[self.kinds], self.sizes <= LABEL
        others = jsons[self.kinds] | (is_cls & ~short)
        has, may = (
            np.logical_or.reduceat(found, self.starts[:-1]) for found in (is_cls & short, others)
        )
        return np.flatnonzero(may & ~has)

    def picture(self, index: int) -> tuple[int, int] | None:
        """(offset, size) of a sample's picture, None where it has none."""
        members = self.members(index)
        return next((members[e] for e in IMAGE_EXTENSIONS if e in members), None)

    def members(self, index: int) -> dict[str, tuple[int, int]]:
        """Extension -> (offset, size) of a sample's members."""
        span = range(int(self.starts[index]), int(self.starts[index + 1]))
        return {
            self.extensions[self.kinds[i]]: (int(self.offsets[i]), int(self.sizes[i])) for i in span
        }


def index_tar(path: Path, *, whole: bool = False) -> TarIndex:
    """Walk the headers of a tar and group its files as WebDataset does.

    The key of a sample is a file's name up to the first dot of its last part, folder kept; files
    of one key follow each other. Hidden files, links and folders are passed over.

    Args:
        whole: read the ``cls`` files and digest the pictures too, which reads all of the tar.

    Raises:
        DataError: naming the file and, where it is broken, the offset: no tar, compressed, cut
            short, a key or a file that comes twice, no sample in it, or no picture.
    """
    # Over 60 lines: one loop over the headers of a large file, whose calls would be its cost.
    keys: list[str] = []
    seen: set[str] = set()
    numbers: dict[str, int] = {}
    starts, kinds = array("q"), array("H")
    offsets, sizes = array("q"), array("q")
    inside: set[str] = set()
    passed_over = PassedOver()
    for header, name, offset, size in _walk(path):
        match = _KEY.fullmatch(name)
        if match is None or any(map(is_hidden, name.split("/"))):
            hidden = any(part and is_hidden(part) for part in name.split("/"))
            passed_over.add("hidden or of the system" if hidden else "files without ending", name)
            continue
        key, extension = match[1], match[2].lower()
        if not keys or keys[-1] != key:
            if key in seen:
                raise DataError(
                    f"{path}: offset {header}: {name!r}: key {key!r} came before; "
                    "the files of a sample follow each other, and every key comes once"
                )
            seen.add(key)
            keys.append(key)
            starts.append(len(kinds))
            inside.clear()
        if extension in inside:
            raise DataError(f"{path}: offset {header}: {name!r} comes twice in sample {key!r}")
        inside.add(extension)
        if len(numbers) == _KINDS and extension not in numbers:
            raise DataError(
                f"{path}: offset {header}: more than {_KINDS:,} different extensions; allowed: at "
                "most that many"
            )
        kinds.append(numbers.setdefault(extension, len(numbers)))
        offsets.append(offset)
        sizes.append(size)
    starts.append(len(kinds))
    if not keys:
        raise DataError(f"{path}: no samples; allowed: files such as 0001.jpg and 0001.txt")
    if not any(extension in IMAGE_EXTENSIONS for extension in numbers):
        raise DataError(
            f"{path}: no pictures; extensions: {', '.join(sorted(numbers))}; "
            f"of a picture: {', '.join(IMAGE_EXTENSIONS)}"
        )
    places, lengths = np.array(offsets, np.int64), np.array(sizes, np.int64)
    index = TarIndex(
        path,
        PackedTexts.pack(keys),
        list(numbers),
        np.array(starts, np.int64),
        np.array(kinds, np.uint16),
        places,
        lengths,
        path.stat().st_size,
        probe_tar(path, places, lengths),
        passed_over=passed_over,
    )
    if whole:
        index.labels = _read_labels(index) if "cls" in numbers else None
        index.digests = _read_digests(index)
    return index


def probe_tar(path: Path, offsets: np.ndarray, sizes: np.ndarray) -> str:
    """Digest of the headers of the first, the middle and the last file (name, size, time, owner)
    and of what follows the last one, so that a tar written anew is told from the old one.

    Raises:
        DataError: the file cannot be read.
    """
    places = [int(offsets[number]) - _BLOCK for number in (0, len(offsets) // 2, -1)]
    places.append(int(offsets[-1]) + -(-int(sizes[-1]) // _BLOCK) * _BLOCK)
    digest = hashlib.sha256()
    try:
        with open_plain(path) as stream:
            for place in places:
                digest.update(os.pread(stream.fileno(), _BLOCK, place))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    return digest.hexdigest()


def _read_labels(index: TarIndex) -> PackedTexts:
    labels: list[str] = []
    with open_plain(index.path) as stream:
        for number in range(len(index)):
            offset, size = index.members(number).get("cls", (0, 0))
            data = os.pread(stream.fileno(), size, offset) if 0 < size <= LABEL else b""
            try:
                labels.append(clean_text(data.decode("utf-8")))
            except UnicodeDecodeError:
                labels.append("")  # reading the sample says so
    return PackedTexts.pack(labels)


def _read_digests(index: TarIndex) -> np.ndarray:
    digests = np.zeros((len(index), 16), np.uint8)
    with open_plain(index.path) as stream:
        for number in range(len(index)):
            place = index.picture(number)
            if place is not None and place[1] <= MAX_PICTURE:
                digest = digest_picture(os.pread(stream.fileno(), place[1], place[0]))
                if digest is not None:
                    digests[number] = np.frombuffer(digest, np.uint8)
    return digests


def _walk(path: Path) -> Iterator[tuple[int, str, int, int]]:
    """Offset of the header, name, offset and size of the data, of each plain file."""
    try:
        if not path.is_file():  # a pipe, say, which would be waited for
            raise DataError(f"{path}: {'not a plain file' if path.exists() else 'no such file'}")
        with open_plain(path) as stream:
            yield from _walk_open(path, stream.fileno())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _walk_open(path: Path, file: int) -> Iterator[tuple[int, str, int, int]]:
    end = os.fstat(file).st_size
    place = 0
    long_name: str | None = None  # of the next member, where its header has no room for it
    long_size: int | None = None
    while place < end:
        header = os.pread(file, _BLOCK, place)
        if len(header) < _BLOCK:
            raise DataError(f"{path}: offset {place}: cut short inside a header")
        if header[:100].count(0) == 100 and header.count(0) == _BLOCK:
            return  # the end mark
        _check_header(path, header, place)
        size = _number(path, header, place)
        flag = header[156:157]
        data = place + _BLOCK
        if flag in _LINKS:
            size = 0  # whatever the field says
        elif long_size is not None and flag in _PLAIN:
            size = long_size
        if data + size > end:
            raise DataError(
                f"{path}: offset {place}: cut short: {_name(header)!r} has {size} bytes, "
                f"{end - data} are left"
            )
        if flag == b"L":  # GNU: the data is the next member's name
            long_name = _meta(file, data, size).rstrip(b"\0").decode("utf-8", "replace")
        elif flag == b"x":  # POSIX.1-2001: records of the next member
            records = _pax(_meta(file, data, size))
            long_name = records.get("path", long_name)
            long_size = _pax_size(path, records.get("size"), place)
        elif flag not in (b"g", b"K"):
            if flag in _PLAIN:
                yield place, long_name or _name(header), data, size
            long_name = long_size = None
        place = data + -(-size // _BLOCK) * _BLOCK


def _check_header(path: Path, header: bytes, place: int) -> None:
    if header[257:262] == b"ustar":
        return
    stored = header[148:156].strip(b" \0")
    plain = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if stored and all(48 <= digit < 56 for digit in stored) and int(stored, 8) == plain:
        return
    kind = _MAGIC.get(header[:2]) if place == 0 else None
    if kind:
        raise DataError(
            f"{path}: compressed ({kind}); allowed: a plain tar, whose samples lie open"
        )
    raise DataError(f"{path}: offset {place}: not a tar header")


def _number(path: Path, header: bytes, place: int) -> int:
    """A member's size: octal, or base 256 where it is 8 GiB or more (GNU)."""
    field = header[124:136]
    if field[0] & 0x80:
        size = int.from_bytes(field, "big") & ((1 << 95) - 1)  # below 0 it is the largest of all
        if size > _MOST:
            raise DataError(f"{path}: offset {place}: {field!r} is not a size")
        return size
    digits = field.strip(b" \0")
    if not all(48 <= digit < 56 for digit in digits):
        raise DataError(f"{path}: offset {place}: {field!r} is not a size")
    return int(digits or b"0", 8)


def _pax_size(path: Path, text: str | None, place: int) -> int | None:
    """The size that a POSIX record gives the next member; None where there is no such record."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _MOST):
        raise DataError(f"{path}: offset {place}: {text[:40]!r} is not a size")
    return int(text)


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    return name.decode("utf-8", "replace")


def _meta(file: int, offset: int, size: int) -> bytes:
    return os.pread(file, min(size, _META), offset)


def _pax(data: bytes) -> dict[str, str]:
    """Records ``"<length> <key>=<value>\\n"`` of an extended header."""
    records: dict[str, str] = {}
    place = 0
    while place < len(data):
        length = data[place : data.find(b" ", place, place + 9)]  # of a record, below 10^8 bytes
        if not length.isdigit() or int(length) <= len(length) + 1:
            break
        record = data[place + len(length) + 1 : place + int(length) - 1]
        key, _, value = record.partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        place += int(length)
    return records
