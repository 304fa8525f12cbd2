"""What a mirror holds of a run at one moment: a manifest, which is written last.

A mirror has ``objects/``, the bytes of files by their sha256; ``manifests/``, one a moment, which
name the run's files with digest and size; ``latest/``, what people look at; and ``claim.json``,
which process writes there. A manifest whose objects are all there is a whole copy of the run.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from ptft.errors import ArtifactError
from ptft.files.bounds import Bounds, check_names, parse_json

__all__ = [
    "MAX_MANIFEST",
    "Manifest",
    "Position",
    "manifest_name",
    "manifest_number",
    "object_name",
]

MAX_MANIFEST = 64 << 20  # bytes; 200 of a file
_FORMAT = 1
_MOST = 1 << 18  # files
_SHA = re.compile(r"[0-9a-f]{64}")

Position = tuple[int, int, int]
"""How far a run is: 0, finished stages, and the step of its checkpoint; (1, 0, 0): to its end."""


@dataclass(frozen=True)
class Manifest:
    """One moment of a run.

    Attributes:
        number: of the moment, from 1.
        position: of the run.
        at: when, ISO 8601.
        files: name in the run folder -> sha256 (hex) and size in bytes.
    """

    number: int
    position: Position
    at: str
    files: Mapping[str, Mapping[str, Any]]

    @property
    def objects(self) -> set[str]:
        """Digests of the files."""
        return {entry["sha256"] for entry in self.files.values()}

    @property
    def size(self) -> int:
        """Bytes of all the files."""
        return sum(entry["size"] for entry in self.files.values())

    def dump(self) -> bytes:
        """As JSON."""
        return (json.dumps({"format": _FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes, where: str) -> "Manifest":
        """Read one that anybody may have written.

        Raises:
            ArtifactError: it is none, of another format, or names what no run folder holds.
        """
        values = Bounds(parse_json(data, where, error=ArtifactError), where)
        if values.values.get("format") != _FORMAT:
            values.refuse("format", values.values.get("format"), str(_FORMAT))
        known = ("format", "number", "position", "at", "files")
        values.keys(known, known)
        values.whole("number", 1, 2**53)
        values.text("at", 40)
        found = values.values["position"]
        if not isinstance(found, list) or len(found) != 3:
            values.refuse("position", found, "three whole numbers")
        for part in found:
            values.check_whole(part, "position", 0, 2**62)
        files = Bounds(values.values["files"], f"{where}: files").values
        if len(files) > _MOST:
            values.refuse("files", files, f"at most {_MOST:,} files")
        check_names(files, f"{where}: files")
        for name, entry in files.items():
            one = Bounds(entry, f"{where}: files: {name}")
            one.keys(("sha256", "size"), ("sha256", "size"))
            one.whole("size", 0, 2**44)
            if not isinstance(entry["sha256"], str) or _SHA.fullmatch(entry["sha256"]) is None:
                one.refuse("sha256", entry["sha256"], "64 hexadecimal digits")
        first, second, third = found
        return cls(values.values["number"], (first, second, third), values.values["at"], files)


def manifest_name(number: int) -> str:
    """Where a manifest lies in a mirror."""
    return f"manifests/{number:010d}.json"


def manifest_number(name: str) -> int | None:
    """The number of a manifest by its name; None: it is no manifest's."""
    found = re.fullmatch(r"manifests/(\d{10})\.json", name)
    return int(found[1]) if found else None


def object_name(sha256: str) -> str:
    """Where the bytes of a digest lie in a mirror."""
    return str(PurePosixPath("objects") / sha256)
