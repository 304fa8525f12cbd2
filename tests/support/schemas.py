"""JSON schemas, written by hand."""

from typing import Any

__all__ = ["closed"]


def closed(required: list[str], /, **keys: Any) -> dict[str, Any]:
    """An object of these keys alone."""
    return {
        "type": "object",
        "properties": keys,
        "required": required,
        "additionalProperties": False,
    }
