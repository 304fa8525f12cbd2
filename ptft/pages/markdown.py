"""Markdown that cannot be broken out of, by what is in a recipe, in data or in a file's name; and
the YAML header of a card.

One function for each place: :func:`inline` in a sentence, a heading or a cell, :func:`code` for a
name in it, :func:`row` for a table, :func:`fenced` for lines of code, :func:`literal` and
:func:`quoted` for a text inside such code; :func:`filled` for a template of both.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ptft.artifact import FolderFiles
from ptft.errors import ArtifactError
from ptft.files.bounds import shown
from ptft.printable import printable
from ptft.recipe.yaml_text import dump_values, read_yaml

__all__ = [
    "UNKNOWN",
    "card_metadata",
    "code",
    "fenced",
    "filled",
    "inline",
    "literal",
    "metadata_licence",
    "quoted",
    "replace_metadata",
    "row",
]

# An underscore between letters and a lone exclamation mark mean nothing; most names have none else.
# Where an address begins, which GitHub and the Hub make a link of: its :// or www.
_MEANS = re.compile(r"[\\`*<>\[\]|&~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=[wW]{3})\.")
_STARTS = re.compile(r"^(?:(?P<number>\d+)(?=[.)])|(?=[-#+=]))")  # a list, heading or rule
_TICKS = re.compile(r"`+")
_CODE = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```\n", re.MULTILINE | re.DOTALL)


def inline(text: str) -> str:
    """``text`` on one line, shown as it is: no markup, no HTML, no link, no second cell or
    heading."""
    plain = _MEANS.sub(lambda match: f"\\{match[0]}", printable(text).strip())
    return _STARTS.sub(lambda match: f"{match['number'] or ''}\\", plain)


def code(text: str) -> str:
    """``text`` as code in a line, between more backticks than it has in a row; also in a cell."""
    shown = printable(text).replace("|", "\\|")
    ticks = "`" * (_longest(shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def row(cells: Iterable[str]) -> str:
    """A line of a table, of cells that are Markdown already."""
    return "| " + " | ".join(cells) + " |"


def fenced(text: str, language: str = "") -> str:
    """Lines of code between fences that are longer than any run of backticks in them."""
    shown = printable(text, lines=True).rstrip("\n")
    fence = "`" * max(3, _longest(shown) + 1)
    return f"{fence}{language}\n{shown}\n{fence}\n"


def literal(text: str) -> str:
    """``text`` as a literal of Python, JavaScript and JSON alike, the same to all three.

    No backtick, apostrophe, ``<`` or ``&`` is in it, nor what :func:`printable` writes out.
    """
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(
        f"\\u{ord(character):04x}"
        if character in "`'<>&" or printable(character) != character
        else character
        for character in quoted
    )


def quoted(text: str) -> str:
    """``text`` as one word of a POSIX shell: nothing in it is run, expanded or read from a file."""
    return shlex.quote(printable(text))


def _longest(text: str) -> int:
    return max((len(match[0]) for match in _TICKS.finditer(text)), default=0)


UNKNOWN = "unknown"
"""A licence that nothing tells; the Hub takes it as one too."""

_FRONT = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


def card_metadata(card: str) -> dict[str, Any]:
    """The YAML header of a card; empty where there is none.

    Raises:
        ArtifactError: it is no YAML mapping.
    """
    match = _FRONT.match(card)
    try:
        values = read_yaml(match[1]) if match else {}
    except yaml.YAMLError as error:
        raise ArtifactError(f"{FolderFiles.CARD}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ArtifactError(f"{FolderFiles.CARD}: metadata is {shown(values)}; allowed: key: value")
    return values


def metadata_licence(values: Mapping[str, Any]) -> str:
    """The one licence of a header, ``unknown`` where it names none or several."""
    licence = values.get("license")
    if isinstance(licence, list) and len(licence) == 1:
        licence = licence[0]
    return licence if isinstance(licence, str) and licence else UNKNOWN


def replace_metadata(card: str, values: dict[str, Any] | None) -> str:
    """A card with another header; None: without one."""
    header = ""
    if values is not None:
        header = f"---\n{dump_values(values)}---\n"
    return header + _FRONT.sub("", card, count=1)


def filled(template: str, **values: object) -> str:
    """A template with values; code is fenced by more backticks than anything in it has in a row."""
    parts, end = [], 0
    for block in _CODE.finditer(template):
        parts.append(template[end : block.start()].format(**values))
        parts.append(fenced(block["code"].format(**values), block["language"]))
        end = block.end()
    return "".join([*parts, template[end:].format(**values)])
