"""YAML as ptft writes it and as recipes are written in it: a little stricter than YAML 1.1, and as
YAML 1.2 counts.

A key that comes twice is an error, where a plain loader drops the first without a word; ``1e-4`` is
a number, where YAML 1.1 asks for ``1.0e-4`` and reads a text otherwise.

A document may be anybody's: how large it is, how deep, and how much its aliases (``*name``) stand
for together is bounded before any value is made.
"""

import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from ptft.printable import printable

__all__ = ["MAX_YAML", "dump_values", "first_bad_value", "read_yaml"]


def dump_values(values: Any, *, width: int = 100) -> str:
    """Plain values as YAML for people: in their order, nothing but text on any terminal.

    What :func:`ptft.printable.printable` would write out becomes an escape in quotes, so that
    reading gives it again.

    Args:
        width: of a line, in characters, where a text can be parted.
    """
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
    return printable(text, lines=True)  # what it changes stands in quotes, see below


class _Dumper(yaml.SafeDumper):
    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = None if printable(text, lines=True) == text else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


MAX_YAML = 4 << 20  # bytes of a document; class names by the ten thousand have 1 MB
_MAX_VALUES = 400_000  # of a document, those that an alias stands for counted each time
_MAX_DEPTH = 64  # of values within values; a recipe has 8
_MAX_WHOLE = 2**63 - 1  # of a whole number, whatever its sign


def read_yaml(text: str) -> Any:
    """Plain values of a document.

    Raises:
        yaml.YAMLError: it is no YAML, holds a tag that is not plain data, repeats a key, is larger
            or deeper than it may be, or a value is none (a number of thousands of digits, the
            29th of February of a common year).
    """
    if len(text) > MAX_YAML:
        raise yaml.YAMLError(f"{len(text)} characters; allowed: at most {MAX_YAML}")
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None
        _Counter().count(node)
        loader = _Loader("")
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise yaml.YAMLError(f"values nested too deep; allowed: {_MAX_DEPTH} levels") from None
    except (ValueError, OverflowError, TypeError, AttributeError) as error:
        raise yaml.YAMLError(f"a value that cannot be: {error}") from None


def first_bad_value(values: Any) -> str | None:
    """What of plain values no recipe may hold, with its key, in words; None where all is well.

    That is a whole number that 64 bits do not hold, and a text with a NUL or half a character in
    it, which no file's name can have.
    """
    return next(_bad_values(values, ""), None)


def _bad_values(values: Any, key: str) -> Iterator[str]:
    if isinstance(values, dict):
        for name, value in values.items():
            inside = f"{key}.{name}" if key else str(name)
            if isinstance(name, str) and (what := _bad_text(name)):
                yield f"{(key or 'recipe')}: a key with {what}; allowed: plain text"
            yield from _bad_values(value, inside)
    elif isinstance(values, list | tuple):
        for number, value in enumerate(values):
            yield from _bad_values(value, f"{key}.{number}" if key else str(number))
    elif isinstance(values, str) and (what := _bad_text(values)):
        yield f"{key}: {values[:80]!r}: {what}; allowed: plain text"
    elif isinstance(values, int) and not -_MAX_WHOLE <= values <= _MAX_WHOLE:
        yield f"{key}: a whole number of {values.bit_length()} bits; allowed: below 2^63"


def _bad_text(text: str) -> str | None:
    if "\0" in text:
        return "a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "half a character (a lone surrogate)"
    return None


class _Counter:
    """Values that a document stands for, before any is made."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}  # of nodes that several aliases name
        self._within: set[int] = set()

    def count(self, node: yaml.Node, depth: int = 0) -> int:
        """Of a node and all below it. Raises yaml.YAMLError where they are too many."""
        key = id(node)
        if key in self._known:
            return self._known[key]
        if key in self._within:
            raise _refused(node, "a value that holds itself")
        if depth > _MAX_DEPTH:
            raise _refused(node, f"values nested deeper than {_MAX_DEPTH} levels")
        self._within.add(key)
        total = 1
        for below in _below(node):
            total += self.count(below, depth + 1)
            if total > _MAX_VALUES:
                raise _refused(node, f"more than {_MAX_VALUES} values, aliases counted each time")
        self._within.discard(key)
        self._known[key] = total
        return total


def _below(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _refused(node: yaml.Node, what: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, what, node.start_mark)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} comes twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
