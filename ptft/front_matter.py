"""The YAML header of a card, and the licence that it names."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from ptft.artifact import FolderFiles
from ptft.errors import ArtifactError
from ptft.recipe.yaml_text import dump_values

__all__ = ["UNKNOWN", "card_metadata", "metadata_licence", "replace_metadata"]

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
        values = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        raise ArtifactError(f"{FolderFiles.CARD}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ArtifactError(f"{FolderFiles.CARD}: metadata is {values!r}; allowed: key: value")
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
