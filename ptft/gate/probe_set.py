"""A small set of pictures with labels or captions, which a model is asked about before it serves.

Three layouts, of which the flat ones fit a ConfigMap:

- ``metadata.csv`` or ``metadata.jsonl`` with ``file_name`` and ``label`` or ``text``, as Hugging
  Face's ImageFolder has it; several rows of one picture are several captions;
- ``NAME.png`` beside ``NAME.txt``, a caption a line;
- ``CLASS/NAME.png``.

It is read without torch and without :mod:`ptft.data`, since it is read where the service runs.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.errors import DataError, UsageError
from ptft.files.bounds import check_inside, load_row, read_bytes
from ptft.model_source import near_names
from ptft.recipe.paths import is_hub_id

__all__ = ["ProbeSet", "open_probe_set", "read_probe_set"]

_TABLES = ("metadata.csv", "metadata.jsonl")
_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
_MOST = 5000  # pictures
_BYTES = 256 << 20  # of all pictures
_TABLE = 16 << 20
_FILES = ["*.csv", "*.jsonl", "*.txt", *(f"*{ending}" for ending in sorted(_ENDINGS))]


@dataclass(frozen=True)
class ProbeSet:
    """What a model is asked about.

    Attributes:
        names: of the pictures.
        pictures: their files' bytes.
        labels: of each; None where the set has captions.
        captions: of each, one or several; empty where the set has labels.
    """

    names: list[str]
    pictures: list[bytes]
    labels: list[str] | None
    captions: list[tuple[str, ...]]

    @property
    def classes(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted(set(self.labels or ()))


def open_probe_set(source: str) -> ProbeSet:
    """A folder, or ``org/name@revision`` of a data set on the Hub.

    Raises:
        UsageError: it is neither.
        DataError: see :func:`read_probe_set`.
        HubError: the Hub refused or cannot be reached.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return read_probe_set(path)
    if path.exists() or not is_hub_id(source):
        what = "a file" if path.exists() else f"no such folder{near_names(path)}"
        raise UsageError(f"--probe {source}: {what}; allowed: a folder, or org/name@revision")
    return read_probe_set(_fetch(source))


def _fetch(source: str) -> Path:
    from huggingface_hub import HfApi

    from ptft.hub.names import split_target
    from ptft.hub.refusals import explained
    from ptft.reach import hub_at_hand

    repo, revision = split_target(source)
    api = HfApi(library_name="ptft")
    with hub_at_hand(api.endpoint), explained(repo, api, revision=revision or "main", doing="pull"):
        found = api.snapshot_download(
            repo, repo_type="dataset", revision=revision, allow_patterns=_FILES
        )
    return Path(found)


def read_probe_set(folder: Path) -> ProbeSet:
    """Read all of a set; nothing in it is passed over but hidden files.

    Raises:
        DataError: no picture, a picture without a label or caption or with both, a table of
            another form, a name that leaves the folder, or more than a small set is.
    """
    tables = [folder / name for name in _TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        raise DataError(f"{folder}: {tables[0].name} and {tables[1].name}; allowed: one of them")
    rows = _of_table(tables[0]) if tables else _of_files(folder)
    names = list(rows)
    if not names:
        raise DataError(
            f"{folder}: no picture; allowed: {' or '.join(_TABLES)}, NAME.png with NAME.txt, or "
            "CLASS/NAME.png"
        )
    if len(names) > _MOST:
        raise DataError(f"{folder}: {len(names):,} pictures; allowed: up to {_MOST:,}")
    labelled = [name for name in names if rows[name].label is not None]
    if labelled and len(labelled) < len(names):
        odd = next(name for name in names if rows[name].label is None)
        raise DataError(f"{folder}: {odd} has no label, and {labelled[0]} has one")
    return ProbeSet(
        names=names,
        pictures=list(_read_pictures(folder, names)),
        labels=[rows[name].label or "" for name in names] if labelled else None,
        captions=[] if labelled else [rows[name].captions for name in names],
    )


@dataclass(frozen=True)
class _Row:
    label: str | None
    captions: tuple[str, ...]


def _of_table(table: Path) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for number, values in _table_rows(table):
        where = f"{table}: row {number}"
        name, label, text = (values.get(key) for key in ("file_name", "label", "text"))
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: no file_name")
        check_inside(name, f"{where}: file_name", error=DataError)
        texts = _texts(where, text)
        has_label = label is not None and label != ""
        if has_label == bool(texts):
            raise DataError(f"{where}: {name}: allowed: a label or a text, one of both")
        before = rows.get(name)
        if before is None:
            rows[name] = _Row(str(label) if has_label else None, texts)
        elif has_label or before.label is not None:
            raise DataError(f"{where}: {name} stands twice; allowed with texts alone")
        else:
            rows[name] = _Row(None, before.captions + texts)
    return rows


def _table_rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    data = read_bytes(table, limit=_TABLE, error=DataError)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: no UTF-8 ({error.reason})") from None
    if table.suffix == ".csv":
        try:
            yield from enumerate(csv.DictReader(io.StringIO(text), strict=True), start=1)
        except csv.Error as error:
            raise DataError(f"{table}: {error}") from None
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values, why = load_row(line), ""
        except (ValueError, RecursionError) as error:  # no JSON, or deeper than Python reads
            values, why = None, f" ({error})"
        if not isinstance(values, dict):
            raise DataError(f"{table}: row {number}: allowed: a JSON object a line{why}")
        yield number, values


def _texts(where: str, text: object) -> tuple[str, ...]:
    texts = text if isinstance(text, list) else [] if text in (None, "") else [text]
    for one in texts:
        if not isinstance(one, str) or not one.strip():
            raise DataError(f"{where}: text {one!r:.40}; allowed: a text, or a list of texts")
    return tuple(texts)


def _of_files(folder: Path) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        if any(part.startswith(".") for part in within.parts) or not path.is_file():
            continue  # a ConfigMap's ..data among them
        if path.suffix.lower() not in _ENDINGS:
            continue
        beside = path.with_suffix(".txt")
        if beside.is_file():
            text = read_bytes(beside, limit=_TABLE, error=DataError).decode("utf-8", "replace")
            captions = tuple(line.strip() for line in text.splitlines() if line.strip())
            if not captions:
                raise DataError(f"{beside}: no caption in it")
            rows[within.as_posix()] = _Row(None, captions)
        elif len(within.parts) == 2:
            rows[within.as_posix()] = _Row(within.parts[0], ())
        else:
            raise DataError(f"{path}: allowed: a caption in {beside.name}, or a folder a class")
    return rows


def _read_pictures(folder: Path, names: list[str]) -> Iterator[bytes]:
    left = _BYTES
    for name in names:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: no such file")
        data = read_bytes(folder / name, limit=_BYTES, error=DataError)
        left -= len(data)
        if left < 0:
            raise DataError(f"{folder}: more than {_BYTES >> 20} MiB of pictures")
        yield data
