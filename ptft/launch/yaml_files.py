"""YAML as systems read it: shell programs as blocks that people can read."""

from typing import Any

import yaml

__all__ = ["dump_documents"]


def dump_documents(*documents: Any, header: str = "") -> str:
    """Documents as one YAML file, keys in their order.

    Args:
        header: comment lines, without their ``#``.
    """
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_lines(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_lines)
