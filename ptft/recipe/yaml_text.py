"""YAML as ptft writes it."""

from typing import Any

import yaml

from ptft.printable import printable

__all__ = ["dump_values"]


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
