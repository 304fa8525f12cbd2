"""Values of files that others wrote, held to types and bounds; one line says what is allowed."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from ptft.errors import ArtifactError, PtftError, suggest
from ptft.files.own import open_plain

__all__ = [
    "MAX_JSON",
    "Bounds",
    "brief",
    "check_inside",
    "check_names",
    "given_twice",
    "load_row",
    "parse_json",
    "read_bytes",
    "shown",
]

MAX_JSON = 256 << 20  # bytes of a JSON file; the largest vocabulary in use has 35 MB
_MAX_VALUES = 4 << 20  # of one JSON text: half a gigabyte or so once Python holds them
_DIGITS = 40  # of a value that are shown
_NAME = re.compile(r"[\w.+ -]+(/[\w.+ -]+)*", re.ASCII)
_MAX_PART, _MAX_PATH = 255, 2048  # bytes of a name, characters of a path, as systems have them
_RESERVED = re.compile(r"(?i:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")  # devices, on Windows
_MAX_NAME = 240  # characters; a path of 255 is the most that every file system takes


def read_bytes(path: Path, *, limit: int = MAX_JSON, error: type[PtftError]) -> bytes:
    """A file's bytes, if they are no more than ``limit``.

    Raises:
        error: it is absent, no file, or larger.
    """
    try:
        with BufferedReader(open_plain(path)) as stream:
            data = stream.read(limit + 1)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError) as reason:
        raise error(f"{path}: cannot be read: {reason}") from None
    if len(data) > limit:
        raise error(f"{path}: more than {limit} bytes; allowed: at most that")
    return data


def parse_json(
    data: bytes | str,
    where: object,
    *,
    most: int | None = _MAX_VALUES,
    once: bool = False,
    error: type[PtftError],
) -> Any:
    """JSON of bytes or text; no nesting and no number that Python cannot take.

    Args:
        most: values; a list that is empty takes three bytes there and sixty here. None: any number.
        once: whether each object has each key once, see :func:`load_row`.

    Raises:
        error: it is none, or has more values, in one line.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        if most is not None and len(text) > most and sum(map(text.count, ",[{")) > most:
            raise error(f"{where}: more than {most} values; allowed: at most that")
        return load_row(text) if once else json.loads(text)
    except RecursionError:
        raise error(f"{where}: not JSON that is read here: nested too deep") from None
    except ValueError as reason:  # of JSON, of UTF-8, of a number of thousands of digits
        raise error(f"{where}: not JSON: {reason}") from None


def load_row(text: str) -> Any:
    """JSON whose objects have each key once; of two values Python would drop the first in silence.

    Raises:
        ValueError: it is none, or an object has a key twice.
        RecursionError: it is nested too deep.
    """
    return _ROWS.decode(text)


def given_twice(pairs: Sequence[tuple[str, object]]) -> str | None:
    """The first key that an object's pairs have twice; None: each comes once."""
    seen: set[str] = set()
    return next((key for key, _ in pairs if key in seen or seen.add(key)), None)  # type: ignore[func-returns-value]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs) and (key := given_twice(pairs)) is not None:
        raise ValueError(f"the key {key[:_DIGITS]!r} comes twice")
    return found


_ROWS = json.JSONDecoder(object_pairs_hook=_once)


class Bounds:
    """The keys of one JSON object, each held to what it may be.

    Args:
        values: the object.
        where: the file, and the key that the object stands under; one that ends with a full stop
            goes before the keys as it is.
        error: what is raised.

    Raises:
        error: ``values`` is no object.
    """

    def __init__(self, values: Any, where: str, error: type[PtftError] = ArtifactError) -> None:
        self.where, self.error = where, error
        if not isinstance(values, dict):
            raise error(f"{where}: {shown(values)}; allowed: a JSON object")
        self.values: dict[str, Any] = values

    def keys(self, known: Iterable[str], needed: Iterable[str] = ()) -> None:
        """No keys but ``known``, and all of ``needed``."""
        allowed = list(known)
        for key in self.values:
            if key not in allowed:
                raise self.error(
                    f"{self._at(brief(key))}: unknown key; {suggest(key[:40], allowed)}"
                )
        for key in needed:
            if key not in self.values:
                raise self.error(f"{self._at(key)}: missing")

    def whole(self, key: str, low: int, high: int, *, none: bool = False) -> None:
        """A whole number; ``none``: or null. An absent key is left to the reader."""
        if key in self.values and not (none and self.values[key] is None):
            self.check_whole(self.values[key], key, low, high)

    def check_whole(self, value: Any, key: str, low: int, high: int) -> None:
        """A whole number that stands at ``key``."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.refuse(key, value, f"a whole number from {low} to {high}")

    def number(self, key: str, low: float, high: float, *, none: bool = False) -> None:
        """A finite number; ``none``: or null."""
        if key in self.values and not (none and self.values[key] is None):
            self.check_number(self.values[key], key, low, high)

    def check_number(self, value: Any, key: str, low: float, high: float) -> None:
        """A finite number that stands at ``key``."""
        right = isinstance(value, int | float) and not isinstance(value, bool)
        if not right or not low <= value <= high or not math.isfinite(value):
            self.refuse(key, value, f"a number from {low:g} to {high:g}")

    def flag(self, key: str) -> None:
        """True or false."""
        if key in self.values and not isinstance(self.values[key], bool):
            self.refuse(key, self.values[key], "true, false")

    def text(self, key: str, most: int, *, none: bool = False) -> None:
        """A text of at most ``most`` characters; ``none``: or null."""
        if key in self.values and not (none and self.values[key] is None):
            self.check_text(self.values[key], key, most)

    def check_text(self, value: Any, key: str, most: int) -> None:
        """A text that stands at ``key``."""
        if not isinstance(value, str) or len(value) > most:
            self.refuse(key, value, f"a text of at most {most} characters")
        if any("\ud800" <= character <= "\udfff" for character in value):
            self.refuse(key, value, "a text of whole characters")

    def choice(self, key: str, choices: Iterable[str]) -> None:
        """One of ``choices``."""
        if key in self.values and self.values[key] not in (allowed := list(choices)):
            self.refuse(key, self.values[key], ", ".join(allowed))

    def texts(self, key: str, count: int, most: int) -> None:
        """A list of at most ``count`` texts of at most ``most`` characters."""
        if key not in self.values:
            return
        found = self.values[key]
        if not isinstance(found, list) or len(found) > count:
            self.refuse(key, found, f"a list of at most {count} texts")
        for index, one in enumerate(found):
            self.check_text(one, f"{key}[{index}]", most)

    def refuse(self, key: str, value: Any, allowed: str) -> NoReturn:
        """Raises ``error`` in one line."""
        raise self.error(f"{self._at(key)}: {shown(value)}; allowed: {allowed}")

    def _at(self, key: str) -> str:
        return f"{self.where}{key}" if self.where.endswith(".") else f"{self.where}: {key}"


def shown(value: Any) -> str:
    """A value in a message: short, on one line, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    short = isinstance(value, list) and len(value) <= 4
    if isinstance(value, list | dict) and not (short and not any(map(_holds, value))):
        return f"a {'list' if isinstance(value, list) else 'JSON object'} of {len(value)}"
    text = repr(value[:_DIGITS] if isinstance(value, str) else value)
    return text if len(text) <= _DIGITS else f"{text[: _DIGITS - 3]}..."


def _holds(value: Any) -> bool:
    return isinstance(value, list | dict)


def brief(key: str) -> str:
    """A key in a message: as it is where it is plain, else as :func:`shown` has it."""
    return key if key.isprintable() and len(key) <= _DIGITS else shown(key)


def check_inside(name: str, where: str, *, error: type[PtftError]) -> None:
    """Hold a name in a table of somebody's to be a path that stays inside a folder, whatever lies
    there (links apart), and that a file can have.

    Raises:
        error: it leads out, has a NUL or half a character, or is longer than any file's.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 1 and name[1] == ":"
    if path.is_absolute() or drive or ".." in path.parts or not path.name:
        raise error(
            f"{where} {shown(name)} leaves the folder, or has .. in it; allowed: a path inside it"
        )
    whole = not any("\ud800" <= letter <= "\udfff" for letter in name)
    longest = max(len(part.encode("utf-8", "replace")) for part in path.parts)
    if "\0" in name or not whole or longest > _MAX_PART or len(name) > _MAX_PATH:
        raise error(f"{where} {shown(name)} is no file's name; allowed: a path inside the folder")


def check_names(names: Iterable[Any], where: str) -> None:
    """Names of files inside a folder, such that they are the same files on every system.

    Raises:
        ArtifactError: one leads out of the folder, is hidden, is a device on Windows, has a
            character that some system takes for something else, differs from another in letter
            case alone, or is a folder of another.
    """
    seen: dict[str, str] = {}
    for name in names:
        plain = isinstance(name, str) and len(name) <= _MAX_NAME and _NAME.fullmatch(name)
        parts = name.split("/") if plain else []
        # a dot in front hides or leads out; one at the end, or a space, is lost on Windows
        odd = (part[0] in ". -" or part[-1] in ". " or _RESERVED.fullmatch(part) for part in parts)
        if not plain or any(odd):
            raise ArtifactError(
                f"{where}: {shown(name)} is no plain file name inside the folder; allowed: letters "
                "of ASCII, digits, and . _ + - between folders and names; no device of Windows"
            )
        key = name.lower()
        if key in seen:
            raise ArtifactError(
                f"{where}: {name!r} and {seen[key]!r} differ in letter case alone; allowed: one"
            )
        seen[key] = name
    folders = {str(parent) for key in seen for parent in _parents(key)}
    if both := folders & seen.keys():
        raise ArtifactError(f"{where}: {sorted(both)[0]!r} is a file and a folder; allowed: one")


def _parents(key: str) -> Iterable[str]:
    parts = key.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts)))
