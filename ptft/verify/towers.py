"""ONNX files against the weights beside them: the graph that an export makes of those.

Golden embeddings show what a file answers to a few inputs that everybody can read beforehand. A
file can answer these rightly and others as somebody likes. What shows that it is the model is that
the exporter makes the very same of the weights: the same nodes, the same numbers.
"""

import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptft import __version__
from ptft.artifact import PRECISIONS, FolderFiles, ModelInfo, tower_file
from ptft.errors import PtftError
from ptft.onnx.check import check_onnx_file
from ptft.onnx.file import Graph, Tensor
from ptft.onnx.model import tower_names
from ptft.verify.link import Link, broken, holds, unchecked

__all__ = ["check_towers"]

_WRITERS = ("torch", "open_clip_torch", "timm", "transformers", "onnx", "onnxscript")
_QUANTISER = "onnxruntime"  # 8 bits
_CLOSE = 1e-5  # of a number that the exporter folds out of several, relative to it
_KINDS: dict[int, Any] = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
                          11: np.float64, 2: np.uint8, 3: np.int8}  # fmt: skip
_LEARNED = "8 bits of a tower that convolves follow from pictures too; answers alone are known"
_NO_PICTURES = np.zeros((0, 3, 1, 1), np.float32)
_SMALL = 64  # numbers; a tensor of fewer may be the exporter's own: axes, sizes, scales


def check_towers(target: str, folder: Path, info: ModelInfo) -> list[Link]:
    """Export the towers again, from the folder's weights, and hold the files against them.

    Where other versions wrote the files, their graphs may differ; then every large tensor has to
    be one of the weights, and what the nodes do with them is left open.
    """
    links: list[Link] = []
    present = [
        (precision, name)
        for precision in PRECISIONS
        for name in tower_names(info)
        if tower_file(name, precision) in info.files
    ]
    if not present:
        return links
    if find_spec("torch") is None:
        return [unchecked("onnx graph", target, "torch is not installed; answers alone are known")]
    with tempfile.TemporaryDirectory(prefix="ptft-verify-") as scratch:
        try:
            weights = _export(folder, Path(scratch), info, [each for each, _ in present])
        except PtftError as error:
            return [broken("onnx graph", target, error)]
        for precision in dict.fromkeys(precision for precision, _ in present):
            files = [tower_file(name, precision) for each, name in present if each == precision]
            again = [file for file in files if (Path(scratch) / file).is_file()]
            if again:
                found = _compare(target, folder, Path(scratch), again, precision, info, weights)
                links.append(found)
            for file in files:
                if file not in again:
                    links.append(
                        unchecked(f"onnx graph {precision}", target, f"{file}: {_LEARNED}")
                    )
    return links


def _export(
    folder: Path, scratch: Path, info: ModelInfo, precisions: list[str]
) -> dict[str, NDArray[np.generic]]:
    """Write the towers of the folder's weights; the weights by ptft's names.

    8 bits are made of the folder's own float32 file, which is held as well: where an exporter sums
    in another order, a last digit of that would move a rounding of this.
    """
    from ptft.evaluate.embed import evaluating
    from ptft.export.graph import write_graph
    from ptft.export.towers import towers_of
    from ptft.model import load_model
    from ptft.onnx.quantise import learns_ranges, write_half, write_int8

    model = load_model(folder).cpu().float().eval()
    with evaluating(model):
        for name, tower in towers_of(model).items():
            write_graph(tower, scratch / name)
            if "fp16" in precisions:
                write_half(scratch / tower_file(name, "fp16"), scratch / name)
            plain = (folder if name in info.files else scratch) / name
            if "int8" in precisions and not learns_ranges(plain):
                write_int8(scratch / tower_file(name, "int8"), plain, _NO_PICTURES)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def _compare(
    target: str,
    folder: Path,
    scratch: Path,
    files: list[str],
    precision: str,
    info: ModelInfo,
    weights: Mapping[str, NDArray[np.generic]],
) -> Link:
    name = f"onnx graph {precision}"
    count = 0
    try:
        for file in files:
            mine, again = check_onnx_file(folder / file), check_onnx_file(scratch / file)
            why = _difference(mine, again, folder / file, scratch / file)
            if why is None:
                count += len(mine.tensors)
                continue
            others = _other_versions(info, _writers(info, precision))
            if not others:
                return broken(name, target, f"{file}: {why}; this export makes another file")
            lost = _strangers(mine, folder / file, weights) if precision == "fp32" else ["its"]
            if lost and precision == "fp32":
                detail = f"{file}: {lost[0]} is none of the weights, and {others} wrote it"
                return unchecked(name, target, detail)
            same = "every large tensor is one of the weights" if precision == "fp32" else why
            detail = f"{file}: {same}; {others} wrote it, so that its nodes cannot be compared"
            return unchecked(name, target, detail)
    except PtftError as error:
        return broken(name, target, error)
    return holds(name, target, f"nodes and {count} tensors as an export makes them of the weights")


def _difference(mine: Graph, again: Graph, path: Path, other: Path) -> str | None:
    """The first thing in which two graphs differ, in words."""
    if (mine.inputs, mine.outputs) != (again.inputs, again.outputs):
        return "other inputs and outputs"
    if len(mine.nodes) != len(again.nodes):
        return f"{len(mine.nodes)} nodes where an export makes {len(again.nodes)}"
    for index, (one, two) in enumerate(zip(mine.nodes, again.nodes, strict=True)):
        for what in ("op", "domain", "inputs", "outputs"):
            if getattr(one, what) != getattr(two, what):
                return f"node {index} ({one.op[:30]}) has other {what}"
        if _attributes(one.attributes) != _attributes(two.attributes):
            return f"node {index} ({one.op[:30]}) has other attributes"
    theirs = {tensor.name: tensor for tensor in again.tensors}
    if len(theirs) != len(mine.tensors) or {t.name for t in mine.tensors} != theirs.keys():
        return "other tensors"
    for tensor in mine.tensors:
        if not _alike(_values(tensor, path), _values(theirs[tensor.name], other)):
            return f"tensor {tensor.name[:60]} has other numbers"
    return None


def _attributes(attributes: list[Any]) -> list[Any]:
    return sorted(
        (one.name, one.raw, [(t.kind, t.dims, bytes(t.data or b""), t.ints) for t in one.tensors])
        for one in attributes
    )


def _values(tensor: Tensor, path: Path) -> NDArray[np.generic] | None:
    """The numbers of a tensor; None where they are in protobuf's own form, which is for few."""
    kind = _KINDS.get(tensor.kind)
    if kind is None:
        return None
    if tensor.external:
        offset = int(tensor.external.get("offset", "0"))
        shape = tuple(tensor.dims)
        found = np.memmap(path.with_name(path.name + "_data"), kind, "r", offset, shape)
        return np.asarray(found)
    if tensor.data is None:
        return np.array(tensor.ints) if tensor.ints else None
    return np.frombuffer(tensor.data, kind).reshape(tensor.dims)


def _alike(one: NDArray[np.generic] | None, two: NDArray[np.generic] | None) -> bool:
    if one is None or two is None:
        return one is None and two is None
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if np.array_equal(one, two):
        return True
    if one.dtype.kind != "f":
        return False
    # sums in another order, where the exporter folds a norm into a convolution
    return bool(np.allclose(one, two, rtol=_CLOSE, atol=_CLOSE * float(np.abs(two).max())))


def _strangers(graph: Graph, path: Path, weights: Mapping[str, NDArray[np.generic]]) -> list[str]:
    """Large tensors of a graph that are none of the weights, as they are or transposed."""
    by_size: dict[int, list[str]] = {}
    for name, array in weights.items():
        by_size.setdefault(array.size, []).append(name)

    def forms(name: str, size: int) -> Iterator[NDArray[np.generic]]:
        near = by_size.get(size, [])
        for other in sorted(near, key=lambda each: each != name):
            yield weights[other]
            if weights[other].ndim == 2:
                yield weights[other].T

    found = []
    for tensor in graph.tensors:
        values = _values(tensor, path)
        if values is None or values.size < _SMALL:
            continue
        flat = values.reshape(-1)
        if not any(np.array_equal(flat, one.reshape(-1)) for one in forms(tensor.name, flat.size)):
            found.append(tensor.name)
    return found


def _writers(info: ModelInfo, precision: str) -> tuple[str, ...]:
    """The libraries that decide a file here."""
    if precision != "int8":
        return _WRITERS
    return (_QUANTISER,) if FolderFiles.TEXT_ONNX in info.files else (*_WRITERS, _QUANTISER)


def _other_versions(info: ModelInfo, writers: tuple[str, ...]) -> str:
    """What wrote the files and is another version here: "torch 2.0"; empty: nothing."""
    here = {"ptft": __version__}
    for name in writers:
        try:
            here[name] = version(name)
        except PackageNotFoundError:
            here[name] = ""
    wrong = [name for name in here if info.versions.get(name, "") != here[name]]
    return ", ".join(f"{name} {info.versions.get(name) or 'unknown'}" for name in wrong)
