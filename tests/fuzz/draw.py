"""Inputs that are nearly right: bytes of a good file with a few edits, values with a few swaps."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

__all__ = ["bytes_near", "odd_values", "to_json", "values_near"]

_HUGE = "\x01a number of more digits than Python reads\x01"
_NUMBERS = (0, 1, 2, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64)
_INTERESTING = (
    *(b"\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"-1", b"NaN"),
    *(b"Infinity", b"1e999", b"9" * 5000, b"[" * 3000, b"{" * 3000, b'{"a":' * 3000, b"../", b"/"),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r\n", b"&a [*a]", b"!!python/name:os.system", b"~"),
)


def to_json(values: Any) -> bytes:
    """JSON as Python writes it, NaN and all, with numbers that it would not write."""
    return json.dumps(values).replace(json.dumps(_HUGE), "9" * 6000).encode()


@st.composite
def bytes_near(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """One of ``seeds`` after a few edits: bytes changed, spans cut, doubled, or put in.

    Args:
        words: what is put in beside what breaks most readers: parts of the format.
    """
    data = bytearray(draw(st.sampled_from(list(seeds))))
    pieces = st.one_of(
        st.sampled_from([*_INTERESTING, *words]),
        st.sampled_from(_NUMBERS).map(lambda n: n.to_bytes(9, "little")[:8]),
        st.sampled_from(_NUMBERS).map(lambda n: str(n).encode()),
        st.binary(max_size=8),
    )
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("flip", "put", "over", "cut", "double", "end")))
        span = draw(st.integers(1, 64))
        if kind == "flip" and place < len(data):
            data[place] ^= draw(st.integers(1, 255))
        elif kind == "put":
            data[place:place] = draw(pieces)
        elif kind == "over":
            piece = draw(pieces)
            data[place : place + len(piece)] = piece
        elif kind == "cut":
            del data[place : place + span]
        elif kind == "double":
            data[place:place] = data[place : place + span] * draw(st.integers(1, 8))
        elif kind == "end":
            del data[place:]
    return bytes(data)


def odd_values() -> st.SearchStrategy[Any]:
    """JSON values that a key is seldom meant to have."""
    fixed = st.sampled_from(
        [
            *(None, True, False, "", "\0", "a\0b", "../../x", "/etc/passwd", "x" * 5000, "é\u202e"),
            *(float("nan"), float("inf"), -float("inf"), 1e308, -0.0, _HUGE, -1, 2**63, 2**31, 0),
            *([], {}, [[]], {"": None}, [1, "1", None], {"a": {"b": []}}, [0] * 300, "\ud800"),
        ]
    )
    leaves = st.one_of(fixed, st.integers(), st.floats(), st.text(max_size=12), st.booleans())
    return st.one_of(
        leaves, st.lists(leaves, max_size=3), st.dictionaries(st.text(max_size=4), leaves)
    )


@st.composite
def values_near(draw: st.DrawFn, seeds: Sequence[Any], keys: Sequence[str] = ()) -> Any:
    """One of ``seeds`` (plain JSON values) with some entries swapped, left out or added.

    Args:
        keys: that may be added.
    """
    values = json.loads(json.dumps(draw(st.sampled_from(list(seeds)))))
    for _ in range(draw(st.integers(0, 3))):
        values = _edit(draw, values, keys)
    return values


def _edit(draw: st.DrawFn, values: Any, keys: Sequence[str]) -> Any:
    if isinstance(values, dict):
        names = [*values, *keys] or ["a"]
        name = draw(st.sampled_from(names))
        what = draw(st.sampled_from(("swap", "swap", "down", "down", "drop")))
        if what == "drop":
            values.pop(name, None)
        elif what == "down" and name in values:
            values[name] = _edit(draw, values[name], keys)
        else:
            values[name] = draw(odd_values())
        return values
    if isinstance(values, list) and values and draw(st.booleans()):
        place = draw(st.integers(0, len(values) - 1))
        values[place] = _edit(draw, values[place], keys)
        return values
    return draw(odd_values())
