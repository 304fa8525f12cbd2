"""What a sample set holds, in a form that a run can keep and hold a set against later.

A run that goes on must read what it began with. Each sample is known by a hash of what a batch is
made of: its name, its captions, the name of its class and its picture as it is stored; times of
files do not matter, so that data may be copied and moved. No picture is decoded. Pictures are read
whole where all of them together are small, else two pieces of each; a drawn set is known by its
section, and a fetched one by what its store says of the files.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptft.data.fields.field_set import FieldSet
from ptft.data.hashing import digest_of
from ptft.data.sample import Part, SampleSet
from ptft.data.sources.class_captions import ClassCaptions
from ptft.data.sources.folder import Folder
from ptft.data.sources.mixture import Joined
from ptft.data.sources.shards import Shards
from ptft.errors import SampleError

__all__ = ["WHOLE", "Identity", "difference", "identify", "identify_files"]

WHOLE = 512 << 20
"""Bytes of pictures that are read whole: a second or two where the system holds them in memory."""

_PIECE = 2 << 10  # bytes of a picture's middle and of its end; its head often says little
_BLOCK, _BLOCKS = 64 << 10, 64  # bytes and number of the pieces of a large table
_MOST = 1_000_000  # samples that are looked at one by one


@dataclass(frozen=True)
class Identity:
    """What a set holds.

    Attributes:
        count: samples, all of them.
        shape: digest of the classes, of how the set is best shuffled, and of what is known of
            samples that cannot be looked at; None: nothing tells whether these change.
        names: of the samples that were looked at, in order.
        contents: uint64, a hash of each of them.
        whole: whether pictures were read whole.
        read: what was looked at, for people.
    """

    count: int
    shape: str | None
    names: list[str]
    contents: np.ndarray
    whole: bool
    read: str


class _TooMuch(Exception):  # noqa: N818 - it changes the way of reading, nothing is wrong
    """The pictures are too large to be read whole."""


def identify(samples: SampleSet, like: Identity | None = None) -> Identity:
    """Read what identifies a set.

    Args:
        like: an earlier look, to be held against; pictures are read as they were then.
    """
    if like is not None:
        return _Look(samples, whole=like.whole, most=None).identity()
    try:
        return _Look(samples, whole=True, most=WHOLE).identity()
    except _TooMuch:
        return _Look(samples, whole=False, most=None).identity()


def identify_files(folder: Path, names: Sequence[str]) -> Identity:
    """Identify files, such as those of a model, each of which is read whole."""
    digests = []
    for name in names:
        with (folder / name).open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").digest()[:8])
    contents = np.frombuffer(b"".join(digests), np.uint64)
    return Identity(len(names), "", list(names), contents, True, f"{len(names)} files, whole")


def difference(before: Identity, now: Identity, what: str = "samples") -> str | None:
    """Describe what changed between two identities; None: nothing that is known."""
    moved = _moved(before, now, what)
    if moved is not None:
        return moved
    if before.count != now.count:
        return f"{now.count:,} {what}, and {before.count:,} before"
    if before.shape != now.shape and before.shape is not None:
        return "its classes, its files or the pieces in which it is read are others"
    return None


def _moved(before: Identity, now: Identity, what: str) -> str | None:
    """What is gone, new, changed or in another place."""
    if np.array_equal(before.contents, now.contents):
        return None  # rows of a table may be called something else
    old = dict(zip(_apart(before.names), before.contents.tolist(), strict=True))
    new = dict(zip(_apart(now.names), now.contents.tolist(), strict=True))
    kinds = {
        "gone": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
        "changed": [name for name in old if name in new and new[name] != old[name]],
    }
    told = [f"{len(names):,} {kind} (first: {names[0]})" for kind, names in kinds.items() if names]
    if told:
        return f"of {before.count:,} {what} {', '.join(told)}"
    places = [n for n, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]]
    if places:
        return f"the order of {len(places):,} of {before.count:,} {what} (first: {places[0]})"
    return None


def _apart(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that came before: a table may name a picture twice."""
    seen: dict[str, int] = {}
    told = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told


class _Look:
    """One look at a set.

    Args:
        whole: read pictures whole.
        most: bytes that may be read; None: any number.
    """

    def __init__(self, samples: SampleSet, *, whole: bool, most: int | None) -> None:
        self.samples = samples
        self.whole = whole
        self.most = most
        self.bytes = 0
        self.sets, self.set_n, self.index_n = _resolve(samples)

    def identity(self) -> Identity:
        samples = self.samples
        step = max(1, -(-len(samples) // _MOST))
        near = np.array([_is_near(each) for each in self.sets])
        looked = [n for n in range(0, len(samples), step) if near[self.set_n[n]]]
        names = [samples.name(n) for n in looked]
        contents = np.array(
            [self._content(n, name) for n, name in zip(looked, names, strict=True)], np.uint64
        )
        states = [self._state(each) for each in self.sets]
        known = None not in states
        blocks = None if samples.blocks is None else samples.blocks.tobytes()
        shape = digest_of(samples.classes, samples.window, blocks, self._unread(near), *states)
        return Identity(
            len(samples), shape if known else None, names, contents, self.whole, self._told(step)
        )

    def _unread(self, near: np.ndarray) -> str:
        """Which of the samples that are not looked at are in the set: drawn ones, say."""
        return digest_of(self.index_n[~near[self.set_n]].tobytes())

    def _told(self, step: int) -> str:
        if not any(map(_is_near, self.sets)):
            return "what its section or its store says"
        each = "every sample" if step == 1 else f"one of {step} samples"
        if not self.whole:
            return (
                f"{each}; pictures of more than {WHOLE >> 20} MiB, {2 * _PIECE >> 10} KiB of each"
            )
        return f"{each}, pictures whole ({self.bytes / 2**20:,.1f} MiB)"

    def _content(self, number: int, name: str) -> int:
        """A hash of what a batch is made of."""
        here, index = self.sets[self.set_n[number]], int(self.index_n[number])
        try:
            captions, label = self.samples.describe(number)
        except SampleError:  # it is skipped, as long as it stays so
            captions, label = ("",), -1
        classes = self.samples.classes
        kind = ""
        if classes and label is not None and label >= 0:
            kind = ", ".join(self.samples.label_names(label))
        if self.samples.label_sets is not None:
            label = None  # a number of the set's own order, which a longer set may have otherwise
        # rows of a table have no names of their own, and their places are told by the order
        parts = [name if _named(here) else "", f"{label} {kind}", *captions]
        digest = hashlib.blake2b(digest_size=8)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        digest.update(self._picture(here, index))
        return int.from_bytes(digest.digest(), "little")

    def _picture(self, samples: SampleSet, index: int) -> bytes:
        """A digest of a picture as it is stored; empty where it cannot be had."""
        assert isinstance(samples, FieldSet)
        place = samples.picture_place(index)
        try:
            if not self.whole:
                return b"" if place is None else self._pieces(*place)
            if self.most is not None and place is not None and self.bytes + place[2] > self.most:
                raise _TooMuch
            data = samples.read_picture(index)
        except (SampleError, OSError):
            return b""
        self.bytes += len(data)
        if self.most is not None and self.bytes > self.most:
            raise _TooMuch
        return hashlib.blake2b(data, digest_size=16).digest()

    def _pieces(self, path: Path, offset: int, size: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            middle = os.pread(descriptor, min(_PIECE, size), offset + max(0, size - _PIECE) // 2)
            end = os.pread(descriptor, min(_PIECE, size), offset + max(0, size - _PIECE))
        finally:
            os.close(descriptor)
        self.bytes += len(middle) + len(end)
        data = size.to_bytes(8, "big") + middle + end
        return hashlib.blake2b(data, digest_size=16).digest()

    def _state(self, samples: SampleSet) -> str | None:
        """What is known of samples whose pictures are not looked at; None: nothing is."""
        if _is_near(samples):
            assert isinstance(samples, FieldSet)
            if self.whole or _has_places(samples):
                return ""
        paths = samples.stored_files() if isinstance(samples, FieldSet) else []
        if paths:
            return digest_of(*(_blocks(path) for path in paths))
        return samples.fingerprint()


def _resolve(samples: SampleSet) -> tuple[list[SampleSet], np.ndarray, np.ndarray]:
    """The sets that a set is made of, and of each sample which of them and its number there."""
    if isinstance(samples, Part):
        sets, set_n, index_n = _resolve(samples.samples)
        return sets, set_n[samples.indices], index_n[samples.indices]
    if isinstance(samples, ClassCaptions):
        return _resolve(samples.samples)
    if isinstance(samples, Joined):
        found = [_resolve(part) for part in samples.parts]
        firsts = np.cumsum([0, *(len(sets) for sets, _, _ in found)])
        return (
            [each for sets, _, _ in found for each in sets],
            np.concatenate([f[1] + first for f, first in zip(found, firsts, strict=False)]),
            np.concatenate([f[2] for f in found]),
        )
    count = len(samples)
    return [samples], np.zeros(count, np.int64), np.arange(count)


def _is_near(samples: SampleSet) -> bool:
    """Whether any sample may be looked at: it is stored here, and not read in order only."""
    remote = bool(getattr(samples, "_remote", False))
    return isinstance(samples, FieldSet) and not samples.in_order and not remote


def _named(samples: SampleSet) -> bool:
    return isinstance(samples, Folder | Shards)


def _has_places(samples: FieldSet) -> bool:
    return len(samples) > 0 and samples.picture_place(0) is not None


def _blocks(path: Path) -> str:
    """A digest of a large file's size, of pieces of it and of its end: a parquet says there where
    its columns lie."""
    size = path.stat().st_size
    places = np.linspace(0, max(0, size - _BLOCK), _BLOCKS).astype(int).tolist()
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        for place in dict.fromkeys(places):
            stream.seek(place)
            digest.update(stream.read(_BLOCK))
    return digest.hexdigest()
