"""Which files of a model folder a service reads, and which are absent because it reads no others.

``ptft pull --for serving`` and the image fetch or copy those alone. The digest stays that of the
whole: ``ptft.json`` records every file, and ``.pulled.json`` says which were left out on purpose,
so that nobody takes them for lost.
"""

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.artifact import (
    PRECISIONS,
    FolderFiles,
    ModelInfo,
    read_json,
    read_model_info,
    tower_file,
    verify_files,
    write_json,
)
from ptft.errors import ArtifactError, PtftError, UsageError
from ptft.onnx.model import tower_names

__all__ = [
    "Parts",
    "absent_on_purpose",
    "check_whole",
    "copy_served",
    "precisions",
    "read_names",
    "read_parts",
    "served_files",
    "write_parts",
]

_TOWERS = (FolderFiles.VISION_ONNX, FolderFiles.TEXT_ONNX, FolderFiles.DETECT_ONNX)
_READ = (FolderFiles.TOKENIZER, FolderFiles.GOLDEN, FolderFiles.HEAD, FolderFiles.SKETCH)
_ALONG = (FolderFiles.RECIPE, FolderFiles.MIX)
"""Of a few thousand bytes, and what the model came from."""


@dataclass(frozen=True)
class Parts:
    """``.pulled.json``: why a folder has not all that ``ptft.json`` records.

    Attributes:
        precision: those whose ONNX files are there.
        absent: names of the files that were left out.
    """

    precision: tuple[str, ...]
    absent: tuple[str, ...]


def precisions(info: ModelInfo) -> list[str]:
    """Those of which a model has every tower."""
    return [
        name
        for name in PRECISIONS
        if all(tower_file(tower, name) in info.files for tower in tower_names(info))
    ]


def read_names(chosen: Iterable[str]) -> set[str]:
    """Names of what a service reads of a model folder in these precisions, where it is recorded."""
    towers = {tower_file(tower, name) for name in chosen for tower in _TOWERS}
    return {*_READ, *towers, *(f"{file}_data" for file in towers)}


def served_files(
    info: ModelInfo, chosen: Sequence[str] = (), *, where: str = FolderFiles.INFO
) -> list[str]:
    """Names of the recorded files that a service reads, and of what goes along with them.

    Args:
        chosen: precisions; none: every one that the model has.
        where: what is named in an error.

    Raises:
        UsageError: the model has no such precision.
    """
    has = precisions(info)
    for name in chosen:
        if name not in has:
            raise UsageError(
                f"{where}: no precision {name!r}; allowed: {', '.join(has) or 'none is there'}"
            )
    return sorted({*read_names(chosen or has), *_ALONG} & info.files.keys())


def write_parts(folder: Path, info: ModelInfo, chosen: Iterable[str] = ()) -> None:
    """Write down which of the recorded files a folder is not to have."""
    given = [name for name in PRECISIONS if name in set(chosen)] or precisions(info)
    kept = set(served_files(info, given))
    values = {
        "for": "serving",
        "precision": given,
        "absent": sorted(info.files.keys() - kept),
    }
    write_json(folder / FolderFiles.PARTS, values)


def read_parts(folder: Path) -> Parts | None:
    """What a folder was pulled without; None of one that was not pulled in part.

    Raises:
        ArtifactError: ``.pulled.json`` is damaged.
    """
    path = folder / FolderFiles.PARTS
    if not path.is_file():
        return None
    values = read_json(path)
    precision, absent = (_names(values, key) for key in ("precision", "absent"))
    if precision is None or absent is None or values.get("for") != "serving":
        raise ArtifactError(f"{path}: damaged; allowed: for, precision and absent; pull again")
    return Parts(precision, absent)


def _names(values: Any, key: str) -> tuple[str, ...] | None:
    found = values.get(key) if isinstance(values, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        return None
    return tuple(found)


def absent_on_purpose(folder: Path, info: ModelInfo) -> list[str]:
    """Recorded files that a folder lacks because it was pulled for serving; a file that is named so
    and lies there all the same is none of them."""
    parts = read_parts(folder)
    absent = parts.absent if parts else ()
    return [name for name in info.files if name in absent and not (folder / name).exists()]


def check_whole(folder: Path, info: ModelInfo, doing: str) -> None:
    """Refuse a folder in part where all of it is needed.

    Raises:
        ArtifactError: naming what it lacks.
    """
    if absent := absent_on_purpose(folder, info):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ArtifactError(
            f"{folder}: pulled for serving, without {absent[0]}{more}; {doing} needs them: pull "
            "the whole model"
        )


def copy_served(source: Path, dest: Path, chosen: Iterable[str]) -> ModelInfo:
    """Copy what a service reads of a model folder, every byte held against the record.

    Args:
        dest: a folder that is not there yet.

    Raises:
        ArtifactError, DigestError: ``source`` is no model folder, or has other bytes.
        UsageError: the model has no such precision.
    """
    info = read_model_info(source)
    chosen = tuple(chosen)
    kept = served_files(info, chosen, where=str(source))
    for name in (*kept, FolderFiles.INFO, *sorted(FolderFiles.UNHASHED - {FolderFiles.INFO})):
        if (source / name).is_file():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, dest / name)
            (dest / name).chmod(0o644)  # safetensors writes files that only their owner may read
    verify_files(dest, {name: info.files[name] for name in kept})
    write_parts(dest, info, chosen)
    return info


if __name__ == "__main__":  # of the Containerfile: SOURCE DEST [PRECISION...]
    try:
        copy_served(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    except PtftError as error:
        sys.exit(f"ptft: {error}")
