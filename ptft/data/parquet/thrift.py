"""Thrift's compact protocol, as much of it as the metadata of parquet needs."""

from collections.abc import Iterator

__all__ = [
    "BINARY",
    "I32",
    "I64",
    "LIST",
    "NOT_NEGATIVE",
    "SHORT",
    "STRUCT",
    "VARINT",
    "Compact",
    "fields_pattern",
    "signed",
]

_DEPTH = 16  # structs within structs
_TRUE, _FALSE, _BYTE, _I16, I32, I64, _DOUBLE, BINARY, LIST, _SET, _MAP, STRUCT = range(1, 13)

# Patterns of bytes, for structs of which a file has very many: those of the usual forms match, and
# those of any other are read value by value.
VARINT = rb"[\x80-\xff]{0,9}+[\x00-\x7f]"
_EVEN = b"[" + b"".join(rb"\x%02x" % byte for byte in range(0x80, 0x100, 2)) + b"]"
_EVEN_LAST = b"[" + b"".join(rb"\x%02x" % byte for byte in range(0, 0x80, 2)) + b"]"
NOT_NEGATIVE = b"(?>" + _EVEN_LAST + b"|" + _EVEN + rb"[\x80-\xff]{0,8}+[\x00-\x7f])"
SHORT = b"(?>" + b"|".join(rb"\x%02x.{%d}" % (n, n) for n in range(64)) + b")"  # a text's bytes


def fields_pattern() -> bytes:
    """Pattern of the fields of a struct that nobody looks at, up to its end: plain ones, lists,
    and structs of such."""
    plain = (
        *(_first(_TRUE, _FALSE), _first(_I16, I32, I64) + VARINT, _first(_DOUBLE) + b".{8}"),
        *(_first(BINARY) + SHORT, _first(LIST) + _lists(I64, VARINT)),
    )
    inner = b"(?>" + b"|".join(plain) + rb")*+\x00"
    more = (_first(STRUCT) + inner, _first(LIST) + _lists(STRUCT, inner))
    return b"(?>" + b"|".join((*plain, *more)) + rb")*+\x00"


def _lists(type_: int, one: bytes) -> bytes:
    """Pattern of lists of few."""
    return (
        b"(?>" + b"|".join(rb"\x%02x(?:%s){%d}" % (n << 4 | type_, one, n) for n in range(4)) + b")"
    )


def signed(data: bytes) -> int:
    """The number that ``VARINT`` matched, with its sign."""
    value = 0
    for byte in reversed(data):
        value = value << 7 | byte & 0x7F
    return (value >> 1) ^ -(value & 1)


def _first(*types: int) -> bytes:
    """Pattern of the first byte of fields of these types, as far as their numbers ascend."""
    firsts = (rb"\x%02x" % (step << 4 | type_) for type_ in types for step in range(1, 16))
    return b"[" + b"".join(firsts) + b"]"


class Compact:
    """A reader of one struct's bytes. It raises IndexError where they end too soon, and ValueError
    where they cannot be.

    Args:
        data: the bytes.

    Attributes:
        place: of the next byte.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def unsigned(self) -> int:
        """A number of 7 bits a byte."""
        byte = self.data[self.place]
        self.place += 1
        if byte < 0x80:
            return byte
        value, shift = byte & 0x7F, 7
        while True:
            byte = self.data[self.place]
            self.place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def signed(self) -> int:
        """A number whose sign is its last bit."""
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)

    def bytes(self) -> bytes:
        """A text or bytes."""
        start = self.place
        length = self.unsigned()
        start = self.place
        self._forward(length)
        return self.data[start : self.place]

    def fields(self) -> Iterator[tuple[int, int]]:
        """(number, type) of each field of a struct; the caller reads or skips its value."""
        number = 0
        while True:
            first = self.data[self.place]
            self.place += 1
            if first == 0:
                return
            step = first >> 4
            number = number + step if step else self.signed()
            yield number, first & 0x0F

    def elements(self) -> tuple[int, int]:
        """(count, type) of a list; the caller reads or skips as many."""
        first = self.data[self.place]
        self.place += 1
        count = first >> 4
        if count == 15:
            count = self.unsigned()
        if count > len(self.data) - self.place:  # each takes a byte or more
            raise IndexError
        return count, first & 0x0F

    def skip(self, type_: int, depth: int = 0) -> None:
        """Leave out a value."""
        if depth > _DEPTH:
            raise ValueError("a struct nested too deep")
        if type_ in (I32, I64, _I16):
            self.unsigned()
        elif type_ == BINARY:
            self._forward(self.unsigned())
        elif type_ in (_TRUE, _FALSE):
            return
        elif type_ in (LIST, _SET):
            count, inner = self.elements()
            for _ in range(count):
                if inner in (_TRUE, _FALSE):
                    self._forward(1)  # in a list a truth is a byte
                else:
                    self.skip(inner, depth + 1)
        elif type_ == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif type_ == _DOUBLE:
            self._forward(8)
        elif type_ == _BYTE:
            self._forward(1)
        else:
            raise ValueError(f"a field of type {type_}")

    def _forward(self, count: int) -> None:
        self.place += count
        if self.place > len(self.data):
            raise IndexError
