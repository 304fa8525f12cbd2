"""The first row of what a guessed data section reads, before anything is known of its fields."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ptft.data.sources.plain_rows import READ
from ptft.errors import PtftError
from ptft.files.picture_names import IMAGE_EXTENSIONS
from ptft.look.columns import Columns, guess_columns
from ptft.recipe.paths import expand_paths, is_url

__all__ = ["FirstRow", "first_row"]

_MEMBERS = 16  # of a tar that belong to its first sample at most


class FirstRow(NamedTuple):
    """What the first row has.

    Attributes:
        columns: what is probably what.
        default: the field that captions are read from where a section does not say.
        own_label: the field that is the class where a section does not say, or None.
        numbered: its class is a number, so that names stand elsewhere.
    """

    columns: Columns
    default: str
    own_label: str | None
    numbered: bool


def first_row(values: Mapping[str, Any], split: str) -> FirstRow | None:
    """Read the first row; None where that is not cheap, or where there are no columns."""
    given = values[split]
    if any(is_url(one) for one in ([given] if isinstance(given, str) else given)):
        return None
    path = expand_paths(given, split)[0]
    try:
        if values["kind"] == "shards":
            fields = _of_tar(path)
            columns = guess_columns(fields, given=("__key__",))
            label = "cls" if "cls" in fields else columns.label
            numbered = str(fields.get(label or "", "")).strip().isdigit()
            columns = columns._replace(picture=None, label=label)
            return FirstRow(columns, "txt", "cls" if "cls" in fields else None, numbered)
        table = _metadata(path) if values["kind"] == "folder" else path
        if table is None or table.is_dir():
            return None
        row = _of_table(table)
        columns = guess_columns(row, given=("file_name",))
        return FirstRow(columns, "text", None, False)
    except (PtftError, OSError, tarfile.TarError, ValueError):
        return None  # opening it says what is wrong


def _metadata(folder: Path) -> Path | None:
    names = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
    return next((one for one in folder.iterdir() if one.name.lower() in names), None)


def _of_table(path: Path) -> dict[str, Any]:
    if path.suffix.lower() in READ:
        return READ[path.suffix.lower()](path)[0]
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=1, use_threads=False))
        row: dict[str, Any] = batch.to_pylist()[0]
    return row


def _of_tar(path: Path) -> dict[str, Any]:
    """Fields of the first sample as ``Shards`` has them: texts by extension, keys of its JSON."""
    fields: dict[str, Any] = {}
    key = None
    with tarfile.open(path) as tar:
        for number, member in enumerate(tar):
            stem, _, extension = member.name.rpartition("/")[2].partition(".")
            key, extension = stem if key is None else key, extension.lower()
            if number >= _MEMBERS or stem != key:
                break
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is None or extension in IMAGE_EXTENSIONS:
                continue
            text = stream.read(1 << 20).decode("utf-8", "replace")
            if extension == "json":
                values = json.loads(text)
                fields = {**values, **fields} if isinstance(values, dict) else fields
            else:
                fields[extension] = text
    return fields
