"""WebDataset tars as a sample set: any sample by number, in any process.

Samples are found by an index (``tar.index``) and read by ``os.pread``. Tars that lie elsewhere are
fetched whole into a folder when one of their samples is first needed (``tar.shard_cache``), then
read like any other; so they are shuffled as wholes, and within a few of them at a time.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptft.data.fields.field_set import FieldSet
from ptft.data.fields.joining import (
    AUTO_BYTES,
    TAIL,
    first_digests,
    first_rows,
    repeated_numbers,
    same_bytes,
    too_large,
)
from ptft.data.fields.label_values import LabelCodes
from ptft.data.fields.labels import Learn
from ptft.data.hashing import file_state
from ptft.data.kept import Arrays, read_texts, texts
from ptft.data.tar.files import ShardSource, TarAhead, TarFiles, TarIndexes
from ptft.data.tar.index import TarIndex
from ptft.data.tar.remote import RemoteShard, list_shards
from ptft.data.tar.shard_cache import ShardCache
from ptft.errors import RecipeError, SampleError
from ptft.files.bounds import load_row
from ptft.files.picture_names import IMAGE_EXTENSIONS
from ptft.preprocess.decoding import check_picture_size
from ptft.recipe.data import ShardsData
from ptft.recipe.paths import expand_paths, is_url
from ptft.speech import counted, tell

__all__ = ["Shards", "find_shards"]

_MAX_TEXT = 4 << 20  # bytes of a text or a JSON in a tar


def find_shards(patterns: str | list[str], key: str) -> list[ShardSource]:
    """The tars that paths and addresses mean, in the order given, globs sorted.

    Raises:
        RecipeError: a pattern matches nothing, or an address is of a protocol that is not allowed.
        DataError, MissingExtraError: a store cannot be asked, see ``list_shards``.
    """
    given = [patterns] if isinstance(patterns, str) else patterns
    if not any(map(is_url, given)):
        return list(expand_paths(patterns, key))
    found: list[ShardSource] = []
    for pattern in given:
        found += list_shards([pattern], key) if is_url(pattern) else expand_paths(pattern, key)
    return found


class Shards(FieldSet):
    """The samples of tars, shard after shard.

    Args:
        section: captions, label and classes; of fetched shards, where they are kept.
        sources: the tars.
        classes: names to number the labels by, where the section has none.

    Raises:
        DataError: a tar is broken (file and offset are named), the index beside it is of another,
            it cannot be fetched, or labels are of no class.
        RecipeError: fetched shards that are shuffled together do not fit into the cache.
    """

    def __init__(
        self,
        section: ShardsData,
        sources: Sequence[ShardSource],
        classes: Sequence[str] | None = None,
        learn: Learn | None = None,
    ) -> None:
        remote = [source for source in sources if isinstance(source, RemoteShard)]
        cache = ShardCache(section.cache, section.cache_gb * 1e9) if remote else None
        self._remote, self._cache = remote, cache
        _check_room(section, remote)
        self._tar_sources = list(sources)
        self._tars = TarIndexes(sources, cache, tell)
        self._firsts = np.cumsum([0, *self._tars.counts.tolist()])
        self._starts: list[int] = self._firsts.tolist()  # quicker to look up
        most = {"most": section.shuffle_shards + 2} if remote else {}  # an open one takes room
        self._files = TarFiles(sources, cache, **most)
        self._ahead = None if cache is None else TarAhead(cache)
        self._names = _short_names(sources)
        if remote:
            self.blocks = self._firsts[:-1]
            self.window = section.shuffle_shards * -(-self._count_rows() // len(sources))
        if section.boxes is not None and remote:
            raise RecipeError(
                f"data.boxes: {section.boxes!r} with shards that are fetched, whose boxes are all "
                "read before training; allowed: shards on this machine"
            )
        super().__init__(section, label="cls" if "cls" in self._tars.extensions else None)
        # cls is a text file, whatever it holds; a key of the JSON tells texts from numbers
        self.text_is = "untyped" if self.label_field in self._tars.extensions else "typed"
        self.said += self._tars.passed_over.lines()
        named = {self.label_field, section.picture_id, section.group}
        wanted = self.templates.fields | named - {None}
        self._texts = {"txt", "cls", *wanted} - {"json", *IMAGE_EXTENSIONS}
        self._settle(classes, learn)
        self._files.close()

    def _count_rows(self) -> int:
        return self._starts[-1]

    def _row_name(self, row: int) -> str:
        shard, within = self._find(row)
        tar = self._tars[shard]
        return f"{self._names[shard]}/{tar.keys[within]}"

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self._count_rows():
            raise IndexError(f"there are {self._count_rows()} rows; there is no number {index}")
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _read_fields(self, row: int) -> Mapping[str, Any]:
        shard, within = self._find(row)
        members = self._tars[shard].members(within)
        fields: dict[str, Any] = {}
        for extension, place in members.items():
            if extension in self._texts:
                fields[extension] = self._text(row, shard, extension, place)
        if "json" in members:
            text = self._text(row, shard, "json", members["json"])
            try:
                values = load_row(text)
            except (ValueError, RecursionError) as error:
                raise SampleError(f"{self._row_name(row)}: json: {error}") from None
            if not isinstance(values, dict):
                raise SampleError(
                    f"{self._row_name(row)}: json: {type(values).__name__}; allowed: an object"
                )
            fields = {**values, **fields}
        return fields

    def _text(self, row: int, shard: int, extension: str, place: tuple[int, int]) -> str:
        if place[1] > _MAX_TEXT:
            raise SampleError(
                f"{self._row_name(row)}: {extension}: {place[1]:,} bytes; allowed: {_MAX_TEXT:,}"
            )
        try:
            return self._files.read(shard, *place).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SampleError(f"{self._row_name(row)}: {extension}: not UTF-8: {error}") from None

    def picture_place(self, index: int) -> tuple[Path, int, int] | None:
        shard, within = self._find(self.rows(index)[0])
        source = self._tar_sources[shard]
        if not isinstance(source, Path):
            return None
        return source, *(self._tars[shard].picture(within) or (0, 0))

    def _read_row(self, row: int) -> bytes:
        shard, within = self._find(row)
        place = self._tars[shard].picture(within)
        if place is None:
            files = ", ".join(sorted(self._tars[shard].members(within)))
            raise SampleError(f"{self._row_name(row)}: no picture; its files: {files}", "empty")
        check_picture_size(self._row_name(row), place[1], self.section.max_pixels)
        return self._files.read(shard, *place)

    def _read_tail(self, row: int) -> bytes:
        shard, within = self._find(row)
        offset, size = self._tars[shard].picture(within) or (0, 0)
        least = min(size, TAIL)
        return self._files.read(shard, offset + size - least, least)

    def _field_names(self) -> set[str]:
        return self._tars.extensions

    def _same_pictures(self) -> np.ndarray | None:
        section = self.section
        if section.join == "none":
            return None
        if section.picture_id is not None:
            return first_rows(self._picture_ids())
        found = self._tars.remembered(self._same, "same", section.join)
        self.said += read_texts(found, "said")
        return found["rows"] if len(found["rows"]) else None

    def _same(self) -> Arrays:
        """What ``_same_pictures`` gives, no rows in place of None, and what it says."""
        before, same = len(self.said), self._look_for_same()
        said, self.said = texts(said=self.said[before:]), self.said[:before]
        return {"rows": np.empty(0, np.int64) if same is None else same, **said}

    def _look_for_same(self) -> np.ndarray | None:
        if all(index.digests is not None for index in self._indexes()):
            return self._by_digests()
        if self._remote:
            self.said.append(
                "fetched shards without digests in their indexes: equal pictures are not looked "
                "for; `ptft data index --force` writes them, data.picture_id names a field that "
                "tells"
            )
            return None
        sizes = np.concatenate([index.picture_sizes() for index in self._indexes()])
        if self.section.join == "auto" and int(sizes.sum()) > AUTO_BYTES:
            self.said.append(too_large(int(sizes.sum())))
            return None
        return same_bytes(sizes, self._read_tail, self._read_row)

    def _indexes(self) -> Iterator[TarIndex]:
        """One at a time, so that few are mapped at once."""
        return map(self._tars.__getitem__, range(len(self._tar_sources)))

    def _by_digests(self) -> np.ndarray | None:
        """The first row with each row's picture; first halves tell most pictures apart."""
        count = self._count_rows()
        low = np.empty(count, np.uint64)
        for first, index in zip(self._starts, self._indexes(), strict=False):
            assert index.digests is not None
            low[first : first + len(index)] = np.array(index.digests).view(np.uint64)[:, 0]
        rows = repeated_numbers(low)
        if not len(rows):
            return None
        digests = np.empty((len(rows), 16), np.uint8)
        for first, index in zip(self._starts, self._indexes(), strict=False):
            assert index.digests is not None
            own = slice(*np.searchsorted(rows, (first, first + len(index))))
            digests[own] = index.digests[rows[own] - first]
        return first_digests(digests, rows, count)

    def files(self, index: int) -> dict[str, bytes]:
        """The sample's own files as they are, whatever they hold, but for its pictures."""
        if self._groups is not None:
            return super().files(index)
        shard, within = self._find(index)
        return {
            extension: self._files.read(shard, *place)
            for extension, place in self._tars[shard].members(within).items()
            if extension not in IMAGE_EXTENSIONS
        }

    def packed_section(self, **paths: str) -> ShardsData:
        if self._groups is not None:
            return super().packed_section(**paths)
        values = self.section.model_dump(exclude={"train", "val", "test"})
        return ShardsData(**{**values, **paths})

    def notes(self, readers: int) -> list[str]:
        if self._cache is None:
            return list(self.said)
        remote, size = self._remote, sum(shard.size for shard in self._remote) / 1e9
        notes = [
            *self.said,
            f"{len(remote):,} shards ({size:,.2f} GB) are fetched into {self._cache.folder}",
        ]
        if len(remote) < readers:
            notes.append(
                f"{len(remote)} fetched shards for {readers} processes that read: some wait for a "
                "shard that another is fetching; more and smaller shards start sooner"
            )
        return notes

    def expect(self, indices: np.ndarray) -> None:
        """Begin to fetch the shards of these samples, in a thread."""
        if self._ahead is None:
            return
        rows = indices if self._groups is None else self._groups.firsts[indices]
        numbers = np.searchsorted(self._firsts, rows, side="right") - 1
        distinct, firsts = np.unique(numbers, return_index=True)
        sources = [self._tar_sources[number] for number in distinct[np.argsort(firsts)]]
        self._ahead.expect([source for source in sources if isinstance(source, RemoteShard)])

    def _sources(self) -> list[object]:
        return [
            file_state(source, name)
            if isinstance(source, Path)
            else (source.url, source.size, source.version)
            for source, name in zip(self._tar_sources, self._names, strict=True)
        ]

    def _label_values(self) -> LabelCodes | None:
        if self._remote and (self.label_field != "cls" or not self._tars.labelled):
            return None  # it would take fetching everything
        if self.section.labels == "many" and not self._remote:  # an index knows no empty cls
            return LabelCodes.of(map(self._label_value, range(self._count_rows())))

        def look() -> Arrays:
            shards = counted(range(count := len(self._tar_sources)), "reading labels", count)
            return LabelCodes.joined(map(self._labels_of, shards)).arrays()

        return LabelCodes.of_arrays(self._tars.remembered(look, "labels", self.label_field))

    def _labels_of(self, shard: int) -> LabelCodes:
        """The labels of a shard: by its index, where that has them."""
        first, count = int(self._firsts[shard]), int(self._tars.counts[shard])
        index = self._tars[shard] if self.label_field == "cls" else None
        here = isinstance(self._tar_sources[shard], Path)
        if index is None or (here and index.labels is None):
            return LabelCodes.of(self._label_value(first + row) for row in range(count))
        if index.labels is None:
            return LabelCodes.of([None] * count)
        found = LabelCodes.coded(*index.labels.encode()).without(lambda text: not text)
        # what an index leaves out: a long text, or a JSON's key of that name
        others = index.without_label() if here else np.empty(0, np.int64)
        values = {row: self._label_value(first + row) for row in others.tolist()}
        return found if set(values.values()) <= {None} else found.replaced(values)

    def _label_value(self, row: int) -> Any:
        """The label of a row, None where it has none or its fields are broken (reading says so)."""
        label = self.label_field or ""
        shard, within = self._find(row)
        place = self._tars[shard].members(within).get(label)
        try:
            if place is not None and label not in ("json", *IMAGE_EXTENSIONS):
                return self._text(row, shard, label, place)
            return self._read_fields(row).get(label)
        except SampleError:
            return None


def _short_names(sources: Sequence[ShardSource]) -> list[str]:
    """Name the tars, without the folders that they have in common."""
    names = [
        source.absolute().as_posix() if isinstance(source, Path) else source.url
        for source in sources
    ]
    folders = [name.split("/")[:-1] for name in names]
    shared = 0
    while all(len(f) > shared and f[shared] == folders[0][shared] for f in folders):
        shared += 1
    return ["/".join(name.split("/")[shared:]) for name in names]


def _check_room(section: ShardsData, shards: Sequence[RemoteShard]) -> None:
    """The windows that are read and fetched must fit; each may reach into one shard more."""
    size = sum(shard.size for shard in shards)
    most = 2 * (section.shuffle_shards + 1)
    if size <= section.cache_gb * 1e9 or not shards:
        return
    needed = min(size, most * max(shard.size for shard in shards)) / 1e9
    if needed > section.cache_gb:
        raise RecipeError(
            f"data.cache_gb: {section.cache_gb:g}: too small for {most} shards, which are twice "
            f"data.shuffle_shards: {section.shuffle_shards} and one more; allowed: at least "
            f"{needed:.3g}, or fewer data.shuffle_shards"
        )
