"""Caption templates over the fields of a sample, what counts as a field's value, and one spelling
for a text, whatever wrote it, so that equal texts compare equal."""

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from string import Formatter
from typing import Any

import numpy as np

from ptft.errors import SampleError
from ptft.preprocess.cleaning import bound_text

__all__ = ["MAX_CAPTION", "Templates", "clean_text", "is_there", "plain_field", "printed_texts"]

_HALF = re.compile("[\ud800-\udfff]")  # of a character, as JSON can spell one: no text holds it

MAX_CAPTION = 65_536
"""Characters of a text that count; 256 tokens of any language have a tenth of that."""

_PRINTED = re.compile(
    r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|None|nan)(?:\s*,|\s+|$)""", re.DOTALL
)  # an entry of a list of texts that Python printed, and what parts it from the next

_MARKS = "\ufeff\u200b"  # a byte-order mark, a space of no width: white space to nobody's strip()


def clean_text(text: str) -> str:
    """Normalise a text: NFC, without byte-order marks or white space at either end.

    Two spellings that look alike (an e with an accent, or an e and an accent) are one text then;
    macOS writes names of files the second way, nearly everything else the first. What lies beyond
    ``MAX_CAPTION`` characters is cut off; half a character (a lone surrogate) becomes U+FFFD.
    """
    text = bound_text(text, MAX_CAPTION)
    if text.isascii():
        return text.strip()
    text = unicodedata.normalize("NFC", _HALF.sub("\ufffd", text))
    first, last = 0, len(text)
    while first < last and _is_blank(text[first]):
        first += 1
    while first < last and _is_blank(text[last - 1]):
        last -= 1
    return text[first:last]


def _is_blank(character: str) -> bool:
    return character.isspace() or character in _MARKS


_LISTS = (list, tuple, np.ndarray)


class Templates:
    """Caption templates such as ``"{name}, {keywords}"``.

    Args:
        templates: plain fields in braces; doubled braces are braces. None: no caption is read.
        lenient: an absent field is no error where the sample has a label.
    """

    def __init__(self, templates: Sequence[str], lenient: bool) -> None:
        self.lenient = lenient
        self._parsed = [
            (template, [(literal, name) for literal, name, _, _ in Formatter().parse(template)])
            for template in templates
        ]

    @cached_property
    def fields(self) -> set[str]:
        """Names of the fields that the templates read."""
        return {name for _, parts in self._parsed for _, name in parts if name is not None}

    def fill(self, fields: Mapping[str, Any], name: str, labelled: bool) -> tuple[str, ...]:
        """The captions of a sample.

        Args:
            fields: its fields; None and blank texts count as absent.
            name: of the sample, for the message.
            labelled: it has a class, so that it may do without a caption.

        Raises:
            SampleError: a field is absent, or is no text, number or list of these.
        """
        captions: list[str] = []
        if not self._parsed:
            return ()
        for template, parts in self._parsed:
            try:
                captions += _fill(parts, fields)
            except KeyError as error:
                if labelled and self.lenient:
                    continue
                raise SampleError(
                    f"{name}: no field {error.args[0]!r} for the caption {template!r}; "
                    f"{_fields_there(fields)}",
                    "empty",
                ) from None
            except TypeError as error:
                raise SampleError(f"{name}: caption {template!r}: {error}") from None
        if not captions and not (labelled and self.lenient):
            raise SampleError(
                f"{name}: its captions are empty lists; {_fields_there(fields)}", "empty"
            )
        return tuple(dict.fromkeys(captions))


def _fill(parts: list[tuple[str, str | None]], fields: Mapping[str, Any]) -> list[str]:
    """The captions of one template. KeyError: an absent field; TypeError: one that is no text."""
    if len(parts) == 1 and not parts[0][0] and parts[0][1] is not None:
        return _texts(fields, parts[0][1])
    pieces: list[str] = []
    for literal, field in parts:
        pieces.append(literal)
        if field is not None:
            pieces.append(", ".join(_texts(fields, field)))
    caption = "".join(pieces).strip()
    # a list may be empty: "crayon, " is "crayon"
    return [caption.rstrip(" ,;:") if parts[-1][1] is not None and not pieces[-1] else caption]


def _texts(fields: Mapping[str, Any], field: str) -> list[str]:
    """The entries of a field as texts, one where it is no list."""
    value = fields.get(field)
    if not isinstance(value, _LISTS) and not is_there(value):
        raise KeyError(field)
    if isinstance(value, str) and (printed := printed_texts(value)) is not None:
        value = printed
    entries = value if isinstance(value, _LISTS) else [value]
    return [_text(entry, field) for entry in entries if is_there(entry)]


def plain_field(value: Any) -> Any:
    """A field as JSON can hold it; None for what is absent or no text, number or list of these."""
    if isinstance(value, _LISTS):
        return [entry for entry in map(plain_field, value) if entry is not None]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str | int | float) and is_there(value) else None


def printed_texts(text: str) -> list[str | None] | None:
    """The entries of a list of texts that was written as a text; None where it is none.

    JSON writes one, or Python, as pandas does of a column of lists in a CSV: with None or nan among
    the texts, and without commas where they were an array.
    """
    if not text.lstrip().startswith("["):
        return None
    text = clean_text(text)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return _python_texts(text)
    texts = isinstance(entries, list) and all(isinstance(one, str | None) for one in entries)
    return entries if texts else None


def _python_texts(text: str) -> list[str | None] | None:
    """The same of a list as Python or numpy prints it."""
    if not text.endswith("]"):
        return None
    at, end = 1, len(text) - 1
    found: list[str | None] = []
    while text[at:end].strip():
        one = _PRINTED.match(text, at, end)
        if one is None:
            return None
        try:
            found.append(None if one[1][0] in "Nn" else _literal(one[1]))
        except (ValueError, SyntaxError):
            return None
        at = one.end()
    return found


def _literal(text: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of \d, which stays what it is
        warnings.simplefilter("ignore", DeprecationWarning)
        return str(ast.literal_eval(text))


def is_there(value: Any) -> bool:
    """Whether a field holds anything: neither None, NaN (an empty cell) nor blank, nor a list of
    nothing but these."""
    if value is None or (isinstance(value, float) and value != value):
        return False
    if isinstance(value, str):
        return bool(clean_text(value))
    return any(is_there(entry) for entry in value) if isinstance(value, _LISTS) else True


def _fields_there(fields: Mapping[str, Any]) -> str:
    return f"fields: {', '.join(sorted(key for key in fields if is_there(fields[key]))) or 'none'}"


def _text(value: Any, field: str) -> str:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int | float | np.number):
        return str(value)
    if isinstance(value, bytes):  # as some programs write texts into parquet
        try:
            return clean_text(value.decode("utf-8"))
        except UnicodeDecodeError:
            raise TypeError(f"field {field!r} is bytes that are not UTF-8") from None
    raise TypeError(f"field {field!r} is {type(value).__name__}; allowed: a text, a number, a list")
