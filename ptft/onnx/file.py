"""What an ONNX file declares, read off its bytes without running, loading or copying anything.

The service has no library of ONNX's, and onnxruntime looks at a file by building what it says.
A reader of protobuf's wire format is short, and takes no memory for weights: they stay in the file,
which is mapped. Field numbers are those of onnx.proto3.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ptft.errors import ArtifactError

__all__ = ["BYTES_OF", "Attribute", "Graph", "Node", "Tensor", "read_onnx"]

BYTES_OF = {
    1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2,
}  # fmt: skip
"""Number of an element type (onnx.TensorProto.DataType) -> bytes of an element."""

_PACKED = {4: 4, 5: 4, 7: 8, 10: 8, 11: 8}  # field of plain values -> smallest bytes of one, packed
_MAX_ITEMS = 1_000_000  # nodes, tensors and edges of one graph
_MAX_BYTES = 2**31  # protobuf's own bound of a file


@dataclass
class Tensor:
    """Numbers that a file holds, or names.

    Attributes:
        name: of an initialiser; empty in an attribute.
        dims: its shape.
        kind: number of its element type.
        data: its bytes in the file where it has raw ones, else None.
        plain: bytes of values in protobuf's own form.
        external: key -> value of where its bytes lie in another file; empty: in this one.
    """

    name: str = ""
    dims: list[int] = field(default_factory=list)
    kind: int = 0
    data: memoryview | None = None
    plain: int = 0
    ints: list[int] = field(default_factory=list)
    external: dict[str, str] = field(default_factory=dict)


@dataclass
class Attribute:
    """One of a node: its name, and what it holds.

    Attributes:
        tensors: that it holds.
        graphs: how many graphs are inside.
        raw: its bytes.
    """

    name: str = ""
    tensors: list[Tensor] = field(default_factory=list)
    graphs: int = 0
    raw: bytes = b""


@dataclass
class Node:
    """One operation."""

    op: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)


@dataclass
class Graph:
    """A file.

    Attributes:
        shapes: of inputs and outputs, by name: sizes, and the names of those that may vary.
        odd: what it holds beside a graph of plain operations, in words.
    """

    nodes: list[Node] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    shapes: dict[str, list[int | str]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)


class _Broken(Exception):  # noqa: N818 - it becomes an ArtifactError, with the file's name
    """The bytes are no such message."""


def read_onnx(path: Path) -> Graph:
    """What a file declares.

    Raises:
        ArtifactError: it is absent, damaged, or too large.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            if not 0 < size <= _MAX_BYTES:
                raise _Broken(f"{size} bytes; allowed: 1 to {_MAX_BYTES}")
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return _model(memoryview(mapped))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing") from None
    except (_Broken, OSError, ValueError) as error:
        raise ArtifactError(f"{path}: no ONNX file that is read here: {error}") from None


def _model(data: memoryview) -> Graph:
    graph: Graph | None = None
    odd = []
    for number, value in _fields(data):
        if number == 7 and isinstance(value, memoryview):
            if graph is not None:
                raise _Broken("two graphs")
            graph = _graph(value)
        elif number == 25:
            odd.append("functions of its own")
        elif number == 20:
            odd.append("training steps")
    if graph is None:
        raise _Broken("no graph")
    graph.odd += odd
    return graph


def _graph(data: memoryview) -> Graph:
    graph = Graph()
    count = 0
    for number, value in _fields(data):
        count += 1
        if count > _MAX_ITEMS:
            raise _Broken(f"more than {_MAX_ITEMS} nodes and tensors")
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            graph.nodes.append(_node(value))
        elif number == 5:
            graph.tensors.append(_tensor(value))
        elif number in (11, 12):
            name, shape = _value_info(value)
            (graph.inputs if number == 11 else graph.outputs).append(name)
            graph.shapes[name] = shape
        elif number == 15:
            graph.odd.append("sparse tensors")
    return graph


def _node(data: memoryview) -> Node:
    node = Node()
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            node.outputs.append(_text(value))
        elif number == 4:
            node.op = _text(value)
        elif number == 7:
            node.domain = _text(value)
        elif number == 5:
            node.attributes.append(_attribute(value))
        if len(node.inputs) + len(node.outputs) > _MAX_ITEMS:
            raise _Broken(f"more than {_MAX_ITEMS} edges of a node")
    return node


def _attribute(data: memoryview) -> Attribute:
    attribute = Attribute()
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            attribute.name = _text(value)
        elif number in (5, 10):
            attribute.tensors.append(_tensor(value))
        elif number in (6, 11, 21, 22, 23):  # graphs, references to a function's, sparse tensors
            attribute.graphs += 1
    if not attribute.tensors:
        attribute.raw = bytes(data)
    return attribute


def _tensor(data: memoryview) -> Tensor:
    tensor = Tensor()
    for number, value in _fields(data):
        if number == 1:
            tensor.dims += _signed(value)
        elif number == 2 and isinstance(value, int):
            tensor.kind = value
        elif number == 3:
            raise _Broken("a tensor in segments")
        elif number == 6:
            raise _Broken("a tensor of texts")
        elif number in _PACKED:
            tensor.plain += len(value) if isinstance(value, memoryview) else _PACKED[number]
            if number == 7 and len(tensor.ints) < 64:
                tensor.ints += _signed(value)
        elif number == 8 and isinstance(value, memoryview):
            tensor.name = _text(value)
        elif number == 9 and isinstance(value, memoryview):
            tensor.data = value
        elif number == 13 and isinstance(value, memoryview):
            pair = {
                key: _text(each) for key, each in _fields(value) if isinstance(each, memoryview)
            }
            tensor.external[pair.get(1, "")] = pair.get(2, "")
        elif number == 14 and value == 1:
            tensor.external.setdefault("location", "")
    return tensor


def _value_info(data: memoryview) -> tuple[str, list[int | str]]:
    """Name and shape; a size that is not told is 0."""
    name = next((_text(value) for value in _inside(data, 1)), "")
    shape: list[int | str] = []
    for dim in _inside(data, 2, 1, 2, 1):  # type, tensor_type, shape, dim
        size: int | str = 0
        for number, value in _fields(dim):
            if number == 1 and isinstance(value, int):
                size = value
            elif number == 2 and isinstance(value, memoryview):
                size = _text(value)
        shape.append(size)
        if len(shape) > _MAX_ITEMS:
            raise _Broken(f"more than {_MAX_ITEMS} axes")
    return name, shape


def _inside(data: memoryview, *numbers: int) -> Iterator[memoryview]:
    """The bytes of all fields that lie at a path of field numbers."""
    for number, value in _fields(data):
        if number == numbers[0] and isinstance(value, memoryview):
            yield from _inside(value, *numbers[1:]) if numbers[1:] else (value,)


def _signed(value: "int | memoryview") -> list[int]:
    """Numbers of 64 bits: one, or several packed."""
    found: list[int] = []
    if isinstance(value, int):
        found.append(value)
    else:
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            found.append(number)
            if len(found) > 64:
                break  # no shape, and more of a tensor's values than any shape needs
    return [number - 2**64 if number >= 2**63 else number for number in found]


def _text(data: memoryview) -> str:
    if len(data) > 4096:
        raise _Broken(f"a name of {len(data)} bytes")
    return bytes(data).decode("utf-8")


def _fields(data: memoryview) -> "Iterator[tuple[int, int | memoryview]]":
    """Number and value of each field of a message; bytes are not copied."""
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _Broken("a field without a number")
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise _Broken(f"a field of wire type {wire}")
        if length > end - place:
            raise _Broken(f"a field of {length} bytes where {end - place} are left")
        yield number, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise _Broken("a number that does not end")
        byte = data[place]
        place += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & (2**64 - 1), place
        shift += 7
