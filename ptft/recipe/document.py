"""YAML as recipes are written in it: a little stricter than YAML 1.1, and as YAML 1.2 counts.

A key that comes twice is an error, where a plain loader drops the first without a word; ``1e-4`` is
a number, where YAML 1.1 asks for ``1.0e-4`` and reads a text otherwise.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["read_yaml"]


def read_yaml(text: str) -> Any:
    """Plain values of a document.

    Raises:
        yaml.YAMLError: it is no YAML, holds a tag that is not plain data, or repeats a key.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


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
