"""HTML and SVG that cannot be broken out of: whatever is not :class:`Markup` is escaped.

What would turn the order of reading, or is no character of text, is written out.
"""

import html
from collections.abc import Iterable

from ptft.printable import printable

__all__ = ["Markup", "element", "join"]

_VOID = frozenset({"img", "meta", "line", "path", "circle", "rect"})


class Markup(str):
    """Text that is markup already and goes in as it is."""

    __slots__ = ()


Child = str | Markup | None


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """``<name attribute="value">children</name>``.

    Args:
        children: plain text is escaped; None is left out.
        attributes: values are escaped; ``True`` gives the bare name, ``False`` and None nothing.
            An underscore stands for a hyphen, and one at the end (``class_``) for nothing.
    """
    shown = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{_escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inside = join(children)
    if name in _VOID and not inside:
        return Markup(f"<{name}{shown}/>")
    return Markup(f"<{name}{shown}>{inside}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other, plain text escaped."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else _escaped(child)
            for child in children
            if child is not None
        )
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text, lines=True))


def _name(key: str) -> str:
    return key.removesuffix("_").replace("_", "-")
