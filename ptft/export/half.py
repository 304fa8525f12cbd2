"""A tower with float16 weights and arithmetic, of the float32 one."""

from pathlib import Path

import onnx

from ptft.export.graph import consumers, save_graph, strip

__all__ = ["write_half"]


def write_half(path: Path, plain: Path) -> None:
    """Write ``path`` from the float32 file ``plain``. Inputs and outputs stay as they are.

    Constants beyond float16 are cut to its range, and below it to its smallest number, by
    onnxruntime's converter (``keep_io_types``).
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = onnx.load(plain)
    _transpose_after_products(proto.graph)
    proto = convert_float_to_float16(proto, keep_io_types=True)
    strip(proto)
    save_graph(proto, path)


def _transpose_after_products(graph: onnx.GraphProto) -> None:
    """Put a Transpose of leading axes behind the product with a matrix that it stood before.

    The two commute. Before it, onnxruntime (1.31 and 1.32) crashes when it makes a session with
    default options: its ``MatmulTransposeFusion`` swaps the Transpose with the Cast to float32 that
    the CPU needs, then finds that it cannot fuse operands of unequal rank, and leaves new nodes
    that it has not told the next pass (``NchwcTransformer``) of. Towers with
    ``nn.MultiheadAttention`` (L, B, D) have this in each block.
    """
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    makers = {name: node for node in graph.node for name in node.output}
    for index in reversed(range(len(graph.node))):
        product = graph.node[index]
        if product.op_type != "MatMul" or product.input[1] not in matrices:
            continue
        before = makers.get(product.input[0])
        if before is None or before.op_type != "Transpose":
            continue
        axes = list(before.attribute[0].ints)
        if axes[-1] != len(axes) - 1:
            continue
        (result,) = product.output
        product.input[0], product.output[0] = before.input[0], f"{result}_before"
        after = onnx.helper.make_node(
            "Transpose", [f"{result}_before"], [result], name=f"{product.name}_after", perm=axes
        )
        graph.node.insert(index + 1, after)
        if not consumers(graph, before.output[0]):
            graph.node.remove(before)
