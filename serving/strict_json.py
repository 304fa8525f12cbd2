"""JSON whose objects have each key once.

Parsers take the last of two values of a key and drop the other in silence: whoever sent
``{"texts": ["a"], "texts": ["b"]}`` would be answered for half of it.
"""

import json
from collections.abc import Sequence
from typing import Any

import orjson

from ptft.files.bounds import given_twice
from serving.refusal import Refusal

__all__ = ["load_json"]

_ESCAPED = (b"\\u003a", b"\\u003A")  # a colon, in other letters


def load_json(data: bytes | bytearray, name: str = "body") -> Any:
    """What a text of JSON holds.

    Args:
        name: of it, for messages.

    Raises:
        Refusal: 422; it is no JSON, an object has a key twice, or what would have to be read once
            more to know that is nested deeper than Python reads.
    """
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refusal(422, "invalid", f"{name}: not JSON: {error}") from None
    # a second value of a key takes its colon along; only then is the text read once more
    if any(one in data for one in _ESCAPED) or data.count(b":") != _colons(values):
        try:
            json.loads(data, object_pairs_hook=_once, parse_int=str)
        except RecursionError:
            raise Refusal(422, "invalid", f"{name}: nested too deeply") from None
    return values


def _colons(values: object) -> int:
    """With how many colons this would be written."""
    found, left = 0, [values]
    while left:
        one = left.pop()
        if isinstance(one, str):
            found += one.count(":")
        elif isinstance(one, dict):
            found += len(one)
            left += one
            left += one.values()
        elif isinstance(one, list):
            left += one
    return found


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs) and (key := given_twice(pairs)) is not None:
        raise Refusal(422, "invalid", f"{key:.80}: given twice; allowed: once")
    return found
