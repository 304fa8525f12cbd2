"""Rows of a Hugging Face dataset: saved in a folder, on the Hub, or streamed from it.

Pictures are taken as the bytes that the dataset holds; no code of a dataset is ever run, and what a
cell gives as a path is read only where ``datasets`` itself has put that file.
"""

import importlib.util
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ptft.data.boxes.objects import feature_names
from ptft.data.fields.joining import AUTO_BYTES, digest_picture, first_rows, too_large
from ptft.data.fields.labels import TextIs
from ptft.data.sources.saved_rows import check_saved, check_table
from ptft.errors import DataError, MissingExtraError, PtftError, SampleError, suggest
from ptft.reach import hub_at_hand
from ptft.speech import tell_once

__all__ = ["HubRows", "StreamedRows", "open_rows"]

_KINDS = ("arrow", "cache", "csv", "imagefolder", "json", "parquet", "text")
"""Readers of ``datasets`` for plain data. Others unpickle (``webdataset``, of a ``.pth``), or read
what is meant for other programs."""

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("validation", "val", "valid", "dev"),
    "test": ("test",),
}


def open_rows(
    source: str,
    *,
    key: str,
    split: str,
    wanted: str | None,
    revision: str | None,
    streaming: bool,
    window: int,
) -> "HubRows | StreamedRows":
    """Open a split of a dataset.

    Args:
        source: ``org/name`` on the Hub, or a folder: saved by ``datasets``, or laid out as a
            repository of the Hub is.
        key: of the recipe, for messages.
        split: ``train``, ``val`` or ``test``.
        wanted: the dataset's own name of the split, where the recipe gives it.
        revision: a commit or a tag on the Hub.
        streaming: do not download first.
        window: rows that are shuffled together when streaming.

    Raises:
        MissingExtraError: ``datasets`` is not installed.
        DataError: there is no such dataset or split, a stream does not say how long it is, or a
            saved folder is not sound (:mod:`ptft.data.sources.saved_rows`).
    """
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError("datasets", "datasets")
    import datasets

    folder = Path(source).expanduser()
    where = f"{key}: {source!r}"
    absent: str | None = None
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            check_saved(folder)
            opened = datasets.load_from_disk(str(folder))
            if isinstance(opened, datasets.DatasetDict):
                opened = opened[_choose(list(opened), split, wanted, where)]
            check_table(opened.data, folder)
            opened = opened.with_format(None)  # all columns, as they are, whatever was set
            if streaming:
                return StreamedRows(opened.to_iterable_dataset(), len(opened), source, window)
            return HubRows(datasets, opened, source)
        name = str(folder) if folder.is_dir() else source
        with _cache_alone(datasets, local=folder.is_dir()) as absent:
            if absent is None and not folder.is_dir():
                tell_once(f"{source}: from the Hub, unless the cache has it")
            builder = datasets.load_dataset_builder(name, revision=revision)
            _check_kind(builder, where)
            splits = datasets.get_dataset_split_names(name, revision=revision)
            chosen = _choose(splits, split, wanted, where)
            if streaming:
                opened = builder.as_streaming_dataset(split=chosen)
            else:
                builder.download_and_prepare()
                opened = builder.as_dataset(split=chosen)
    except PtftError:
        raise
    except Exception as error:  # datasets raises whatever its back ends do
        why = f"{type(error).__name__}: {error}"
        if absent:
            why = f"no such folder here; not in the cache; {absent}"
        raise DataError(f"{where}: {why}") from None
    if not streaming:
        return HubRows(datasets, opened, source)
    told = (opened.info.splits or {}).get(chosen)
    if told is None or not told.num_examples:
        raise DataError(
            f"{where}: it does not say how many rows {chosen!r} has, so its epochs cannot be "
            "counted; data.streaming: false downloads it first"
        )
    return StreamedRows(opened, told.num_examples, source, window)


@contextmanager
def _cache_alone(datasets: ModuleType, *, local: bool) -> Iterator[str | None]:
    """Let ``datasets`` take what is in its cache where the Hub does not answer; gives why."""
    if local:
        yield None
        return
    before = datasets.config.HF_HUB_OFFLINE
    with hub_at_hand() as absent:
        datasets.config.HF_HUB_OFFLINE = before or absent is not None
        try:
            yield absent
        finally:
            datasets.config.HF_HUB_OFFLINE = before


class HubRows:
    """Rows of a dataset on disk, mapped into memory by ``datasets``."""

    text_is: TextIs = "typed"
    window: int | None = None
    blocks: np.ndarray | None = None

    def __init__(self, datasets: ModuleType, dataset: Any, source: str) -> None:
        self._dataset = _undecoded(datasets, dataset)
        self._source = source
        self.columns = list(dataset.column_names)
        self._picture = ""
        self._described: Any = None

    def __len__(self) -> int:
        return len(self._dataset)

    def use(self, picture: str | None, fields: Sequence[str]) -> None:
        self._picture = picture or ""
        self._described = self._dataset.select_columns(list(fields)) if fields else None

    def name(self, index: int) -> str:
        return f"{self._source}/{index}"

    def fields(self, index: int) -> Mapping[str, Any]:
        return {} if self._described is None else self._described[index]

    def picture(self, index: int) -> Any:
        return _own_file(self._dataset[index][self._picture])

    def column(self, name: str) -> Sequence[Any]:
        return self._dataset.select_columns([name])[:][name]

    def stored_files(self) -> list[Path]:
        return []

    def sources(self) -> list[object]:
        return [self._dataset._fingerprint]  # of datasets: of the data and all done to it

    def class_names(self, name: str) -> list[str] | None:
        return _class_names(self._dataset.features, name)

    def same_pictures(self, auto: bool) -> np.ndarray | str | None:
        size = int(self._dataset.data.nbytes)
        if auto and size > AUTO_BYTES:
            return too_large(size)
        batches = self._dataset.select_columns([self._picture]).iter(256)
        return first_rows(_picture_key(cell) for batch in batches for cell in batch[self._picture])


class StreamedRows:
    """Rows of a stream, read in order, a window at a time.

    A window is read by going on from the one before it, or, after a jump, by passing over what
    lies before; either way it holds the same rows.
    """

    blocks: np.ndarray | None = None
    text_is: TextIs = "typed"

    def __init__(self, dataset: Any, count: int, source: str, window: int) -> None:
        import datasets

        if dataset.features is None:
            dataset = dataset._resolve_features()
        self._features = dataset.features
        self._dataset = _undecoded(datasets, dataset)
        self._count = count
        self._source = source
        self.window: int | None = window
        self._length = window
        self.columns = list(self._features)
        self._picture = ""
        self._fields: list[str] = []
        self._rows: Iterator[dict[str, Any]] | None = None
        self._close: weakref.finalize | None = None  # ends ``_rows`` before the interpreter does
        self._next = -1  # the window that ``_rows`` stands before
        self._kept: dict[int, list[dict[str, Any]]] = {}

    def __len__(self) -> int:
        return self._count

    def use(self, picture: str | None, fields: Sequence[str]) -> None:
        self._picture, self._fields = picture or "", list(fields)

    def name(self, index: int) -> str:
        return f"{self._source}/{index}"

    def fields(self, index: int) -> Mapping[str, Any]:
        row = self._row(index)
        return {name: row.get(name) for name in self._fields}

    def picture(self, index: int) -> Any:
        return self._row(index).get(self._picture)

    def column(self, name: str) -> None:
        return None

    def stored_files(self) -> list[Path]:
        return []

    def sources(self) -> None:
        return None  # a stream may change without a sign

    def class_names(self, name: str) -> list[str] | None:
        return _class_names(self._features, name)

    def same_pictures(self, auto: bool) -> str:
        return "rows of a stream are not held against each other (data.streaming)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None, "_close": None, "_next": -1, "_kept": {}}

    def _row(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._count:
            raise IndexError(f"there are {self._count} rows; there is no number {index}")
        number, within = divmod(index, self._length)
        if number not in self._kept:
            self._kept[number] = self._read_window(number)
            while len(self._kept) > 2:  # a batch may lie across two
                del self._kept[next(iter(self._kept))]
        return self._kept[number][within]

    def _read_window(self, number: int) -> list[dict[str, Any]]:
        first = number * self._length
        wanted = min(self._length, self._count - first)
        if self._rows is None or self._next != number:
            self._rows = self._start(first)
        try:
            rows = list(islice(self._rows, wanted))
        except Exception as error:  # whatever the network, the file system and the parsers raise
            self._rows = None
            raise DataError(
                f"{self._source}: row {first} and on: {type(error).__name__}: {error}"
            ) from None
        self._next = number + 1
        if len(rows) < wanted:
            raise DataError(
                f"{self._source}: it ended after {first + len(rows)} rows; it says that it has "
                f"{self._count}"
            )
        return rows

    def _start(self, first: int) -> Iterator[dict[str, Any]]:
        """The rows from ``first`` on; those that were read before are closed."""
        if self._close is not None:
            self._close()
        columns = list(dict.fromkeys([*([self._picture] if self._picture else []), *self._fields]))
        rows = iter(self._dataset.select_columns(columns).skip(first))
        self._close = weakref.finalize(self, rows.close)
        return rows


def _check_kind(builder: Any, where: str) -> None:
    """Hold the reader that ``datasets`` chose to be one of plain data. Raises DataError."""
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in _KINDS:
        hint = "; of tars: data.kind: shards" if kind == "webdataset" else ""
        raise DataError(
            f"{where}: files of kind {kind!r}; allowed: {', '.join(_KINDS[2:])}, arrow{hint}"
        )


def _choose(names: list[str], split: str, wanted: str | None, where: str) -> str:
    if wanted is not None:
        if wanted not in names:
            raise DataError(f"{where}: no split {wanted!r}; {suggest(wanted, names)}")
        return wanted
    for name in _SPLIT_NAMES[split]:
        if name in names:
            return name
    raise DataError(
        f"{where}: no split {split!r}; name it as org/name:split; allowed: {', '.join(names)}"
    )


def _undecoded(datasets: ModuleType, dataset: Any) -> Any:
    """The dataset with its pictures left encoded."""
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset


def _class_names(features: Any, name: str) -> list[str] | None:
    return feature_names(features.to_dict().get(name))


def _picture_key(cell: Any) -> object:
    """What tells the picture of a cell from others: its bytes, else its path."""
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(data, bytes):
        return digest_picture(data)
    return cell.get("path") if isinstance(cell, dict) else None


def _own_file(cell: Any) -> Any:
    """A picture's cell; a path is read only in the cache of ``datasets``, which put it there."""
    if not isinstance(cell, dict) or cell.get("bytes") is not None or not cell.get("path"):
        return cell
    import datasets

    path = Path(cell["path"])
    cache = Path(datasets.config.HF_DATASETS_CACHE).resolve()
    hub = Path(datasets.config.HF_CACHE_HOME).expanduser().resolve() / "hub"
    if not path.is_absolute() or not any(
        path.resolve().is_relative_to(place) for place in (cache, hub)
    ):
        return cell
    try:
        return {"bytes": path.read_bytes(), "path": cell["path"]}
    except OSError as error:
        raise SampleError(f"{path.name}: {error.strerror or error}", "unreadable") from None
