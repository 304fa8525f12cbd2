"""What a pulled folder remembers of the files that ``ptft.json`` cannot cover: itself, the card.

``.pulled.sha256`` has a line for each, as ``sha256sum`` writes and checks them. In the Hub's cache
there is none: there a file is a link to its content, which is named by its digest.
"""

import re
from pathlib import Path

from ptft.artifact import FolderFiles, file_sha256, write_atomic
from ptft.hub.names import git_ids

__all__ = ["changed_since_pull", "record_pulled"]

_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>[\w.-]+)")
_NAMES = (FolderFiles.INFO, FolderFiles.CARD)


def record_pulled(folder: Path) -> None:
    """Write down the digests of ``ptft.json`` and the card of a folder that was verified."""
    names = [name for name in _NAMES if (folder / name).is_file()]
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in names]
    write_atomic(folder / FolderFiles.PULLED, "".join(lines))


def changed_since_pull(folder: Path) -> list[str]:
    """Each file that is not as it was pulled, and why; empty for a folder that was not pulled."""
    record = folder / FolderFiles.PULLED
    if not record.is_file():
        return [problem for name in _NAMES if (problem := _against_cache(folder / name))]
    problems = []
    for line in record.read_bytes().decode(errors="replace").rstrip("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            return [f"{record.name}: damaged: {line!r} is no digest and name"]
        path = folder / match["name"]
        if not path.is_file():
            problems.append(f"{path.name}: missing; {record.name} records it")
        elif file_sha256(path) != match["sha256"]:
            problems.append(
                f"{path.name}: not as it was pulled, which {record.name} records "
                f"(if you edited it on purpose, remove {record.name})"
            )
    return problems


def _against_cache(path: Path) -> str | None:
    blob = path.resolve()
    if not path.is_symlink() or blob.parent.name != "blobs" or not blob.is_file():
        return None
    if blob.name in (*git_ids(blob), file_sha256(blob)):
        return None
    return f"{path.name}: changed in the Hub's cache"
