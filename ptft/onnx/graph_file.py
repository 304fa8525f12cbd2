"""An ONNX graph on its way to a file: what is taken out of it, and where its weights go.

Files over ``EXTERNAL_OVER`` bytes keep their weights in ``…onnx_data`` beside them, since protobuf
ends at 2 GiB.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_tensor,
    save_external_data,
    set_external_data,
    uses_external_data,
)

__all__ = ["EXTERNAL_EACH", "EXTERNAL_OVER", "consumers", "inside", "save_graph", "strip"]

EXTERNAL_OVER = 1_800_000_000  # bytes of weights; below 2 GiB with room for the graph
EXTERNAL_EACH = 1024  # bytes of a tensor that goes there; smaller ones stay in the graph


def strip(proto: onnx.ModelProto) -> None:
    """Remove what tells of the machine and not of the model: stack traces, scopes, shapes between.

    Intermediate shapes go too: onnxruntime infers them, and its quantiser fails on the exporter's.
    """
    proto.producer_name, proto.producer_version = "ptft", ""
    proto.doc_string = ""
    del proto.metadata_props[:]
    graph = proto.graph
    graph.name, graph.doc_string = "tower", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    assert not proto.functions, "the exporter inlines its functions"
    values = [*graph.input, *graph.output, *graph.initializer]
    for item in [*values, *_nodes(graph)]:
        item.doc_string = ""
        del item.metadata_props[:]


def _nodes(graph: onnx.GraphProto) -> Iterator[Any]:
    """Nodes, also those inside control flow, and what such an inner graph holds besides."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                del inner.value_info[:]
                yield inner
                yield from inner.initializer
                yield from _nodes(inner)


def consumers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that read a value."""
    return [node for node in graph.node if name in node.input]


def inside(tensor: onnx.TensorProto, beside: Path | None) -> onnx.TensorProto:
    """A tensor with its bytes; itself where it has them.

    Args:
        beside: the folder that those of others lie in.
    """
    if not uses_external_data(tensor):
        return tensor
    assert beside is not None, "a folder is named where weights are outside"
    whole = onnx.TensorProto()
    whole.CopyFrom(tensor)
    load_external_data_for_tensor(whole, str(beside))
    whole.ClearField("data_location")  # which was set to its default
    return whole


def save_graph(proto: onnx.ModelProto, path: Path, beside: Path | None = None) -> None:
    """Write a model; with more than ``EXTERNAL_OVER`` bytes of weights, those go beside it.

    Args:
        beside: the folder of weights that are outside of ``proto``; they are read one by one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}_data").unlink(missing_ok=True)  # onnx would write behind it
    if sum(map(_length, proto.graph.initializer)) > EXTERNAL_OVER:
        for tensor in proto.graph.initializer:
            _put_outside(tensor, path, beside)
        path.write_bytes(proto.SerializeToString(deterministic=True))
    else:
        with path.open("wb") as stream:
            stream.writelines(_pieces(proto, beside))


def _length(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor, as they are written in one piece."""
    if uses_external_data(tensor):
        return int(ExternalDataInfo(tensor).length or 0)
    return len(tensor.raw_data)


def _put_outside(tensor: onnx.TensorProto, path: Path, beside: Path | None) -> None:
    """Write a tensor's bytes behind those that are there, and refer to them."""
    tensor.CopyFrom(inside(tensor, beside))
    if _length(tensor) >= EXTERNAL_EACH:
        set_external_data(tensor, f"{path.name}_data")
        save_external_data(tensor, str(path.parent))
        tensor.ClearField("raw_data")


def _pieces(proto: onnx.ModelProto, beside: Path | None) -> Iterator[bytes]:
    """``proto.SerializeToString(deterministic=True)`` with all weights inside, one weight after
    another: in one piece all would be in memory once more."""
    before, graph, after = _around(proto, "graph")
    graph_before, weight, graph_after = _around(proto.graph, "initializer")
    sizes = [_size(one) for one in proto.graph.initializer]
    heads = [weight + _varint(size) for size in sizes]
    size = sum(map(len, (graph_before, *heads, graph_after))) + sum(sizes)
    yield before + graph + _varint(size) + graph_before
    for head, one in zip(heads, proto.graph.initializer, strict=True):
        yield head + inside(one, beside).SerializeToString(deterministic=True)
    yield graph_after + after


def _size(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's message with its weights inside."""
    if not uses_external_data(tensor):
        return int(tensor.ByteSize())
    empty = onnx.TensorProto()
    empty.CopyFrom(tensor)
    for name in ("data_location", "external_data"):
        empty.ClearField(name)
    empty.raw_data = b""
    length = _length(tensor)
    return int(empty.ByteSize()) - len(_varint(0)) + len(_varint(length)) + length


def _around(message: Any, name: str) -> tuple[bytes, bytes, bytes]:
    """What is written of a message before a field, before each of its values, and after it: fields
    stand in the order of their numbers, a message behind its number and its length (protobuf.dev,
    encoding)."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    parts = type(message)(), type(message)()
    for field, value in message.ListFields():
        part = parts[field.number > number]
        if field.number == number:
            continue
        if hasattr(value, "extend"):
            getattr(part, field.name).extend(value)
        elif field.message_type is not None:
            getattr(part, field.name).CopyFrom(value)
        else:
            setattr(part, field.name, value)
    before, after = (part.SerializeToString(deterministic=True) for part in parts)
    return before, _varint(number << 3 | 2), after


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
