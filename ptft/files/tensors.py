"""Named tensors in safetensors files: in one, or each rank's rows of them in one a rank.

FSDP2 keeps the rows of a tensor on several ranks (a DTensor, ``Shard(0)`` over a mesh of one
dimension, cut as ``torch.chunk`` does). Each rank writes its own rows and states in the file's
metadata where they lie in the whole; a reader takes from the files just the rows that it needs, at
whatever number of ranks. torch.distributed.checkpoint does the same with a pickle for metadata,
which may run code when it is read.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ptft.errors import ArtifactError
from ptft.files.arrays import check_header
from ptft.files.atomic import shareable
from ptft.files.bounds import Bounds, parse_json

__all__ = [
    "LocalTensors",
    "TensorFiles",
    "is_sharded",
    "local_part",
    "local_tensors",
    "send",
    "tensor_file",
    "write_local",
    "write_tensors",
]

_MAX_RANKS = 65_536
_ROWS = "rows"  # in the metadata: JSON, name -> [first row, rows of the whole]


def tensor_file(stem: str, rank: int = 0, size: int = 1) -> str:
    """Name of the file of a rank among ``size`` that write rows: ``stem.safetensors`` for one."""
    return (
        f"{stem}.safetensors" if size == 1 else f"{stem}-rank{rank:05d}-of-{size:05d}.safetensors"
    )


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether any of the tensors lies on several ranks."""
    return any(hasattr(tensor, "placements") for tensor in tensors)


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, detached and sharing its memory."""
    tensor = tensor.detach()
    sharded: Any = tensor
    return sharded.to_local() if is_sharded([tensor]) else tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device. To a GPU it goes from pinned memory: the copy is under way
    when this returns, and the host waits for nothing."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class LocalTensors:
    """What lies here of named tensors, to be written to one file.

    Attributes:
        tensors: detached, sharing the memory of those that they are of.
        rows: of each sharded one the first row that is here, and the rows of the whole.
        apart: whether no byte is of two of them, though they lie in one memory.
    """

    tensors: dict[str, Tensor]
    rows: dict[str, list[int]]
    apart: bool = False


def local_tensors(tensors: Mapping[str, Tensor], *, whole: bool = True) -> LocalTensors:
    """Of each sharded tensor the rows that are here, and the others as they are.

    Args:
        whole: with tensors that are not sharded, which every rank has alike; one rank writes them.

    Raises:
        ArtifactError: a tensor is sharded in another way than by rows.
    """
    kept: dict[str, Tensor] = {}
    rows: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        local, first, total = _local(name, tensor)
        if total is None and not whole:
            continue
        if total is not None:
            if len(local) == 0:
                continue
            rows[name] = [first, total]
        kept[name] = local.detach()
    return LocalTensors(kept, rows)


def write_local(path: Path, part: LocalTensors) -> None:
    """Write a file.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    kept: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in part.tensors.items():
        kept[name] = tensor.cpu().contiguous()
        place = kept[name].untyped_storage().data_ptr()
        if (
            place in taken and not part.apart
        ):  # tied weights: safetensors keeps no two names for one memory
            kept[name] = kept[name].clone()
        taken.add(place)
    metadata = {"format": "pt"} | ({_ROWS: json.dumps(part.rows)} if part.rows else {})
    save_file(kept, path, metadata)
    shareable(path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, whole: bool = True) -> None:
    """Write what :func:`local_tensors` finds here, as :func:`write_local` does; both say what they
    raise."""
    write_local(path, local_tensors(tensors, whole=whole))


class TensorFiles:
    """The tensors ``stem`` of a folder, from one file or from those of all the ranks that wrote.

    Raises:
        ArtifactError: a file is absent, damaged, or lacks rows.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.label = str(folder / tensor_file(stem))
        self._stack = ExitStack()
        self._pieces: dict[str, list[_Piece]] = {}
        try:
            for path in _find(folder, stem):
                check_header(path)
                self._index(self._stack.enter_context(safe_open(path, framework="pt")))
        except ArtifactError:
            self._stack.close()
            raise
        except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
            self._stack.close()
            raise ArtifactError(f"{self.label}: not a safetensors file: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def names(self) -> list[str]:
        """Of all tensors, sorted."""
        return sorted(self._pieces)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        piece = self._piece(name)
        return piece.shape if piece.total is None else (piece.total, *piece.shape[1:])

    def read(self, name: str, like: Tensor | None = None) -> Tensor:
        """A tensor, in its own type, on the CPU.

        Args:
            like: give it the memory layout and device of this tensor, and its rows if it is
                sharded, where the whole shapes are the same.
        """
        shape, dtype = self.shape(name), self._piece(name).dtype(name)
        if like is not None and tuple(like.shape) == shape:
            tensor = torch.empty_like(like, dtype=dtype)
        else:
            tensor = torch.empty(shape, dtype=dtype)
        self.fill(name, tensor)
        return tensor

    def fill(self, name: str, target: Tensor) -> None:
        """Copy a tensor, or the rows of it that ``target`` has here, into ``target``.

        Raises:
            ArtifactError: the shapes differ, or rows are missing.
        """
        if tuple(target.shape) != self.shape(name):
            raise ArtifactError(
                f"{self.label}: {name} has shape {self.shape(name)}; allowed: {tuple(target.shape)}"
            )
        local, first, _ = _local(name, target)
        pieces = self._pieces[name]
        with torch.no_grad():
            if local.ndim == 0:
                local.copy_(pieces[0].file.get_tensor(name))
                return
            end = first + len(local)
            filled = sum(piece.copy_rows(name, local, first, end) for piece in pieces)
        if filled != len(local):
            raise ArtifactError(f"{self.label}: {name} lacks {len(local) - filled} of its rows")

    def _index(self, file: Any) -> None:
        text = (file.metadata() or {}).get(_ROWS, "{}")
        rows = Bounds(parse_json(text, self.label, error=ArtifactError), self.label).values
        for name in file.keys():  # noqa: SIM118 (no mapping)
            shape = tuple(file.get_slice(name).get_shape())
            first, total = rows.get(name, (0, None))
            if name in rows:
                self._check_rows(name, shape, first, total)
            self._pieces.setdefault(name, []).append(_Piece(file, shape, first, total))

    def _check_rows(self, name: str, shape: tuple[int, ...], first: int, total: int) -> None:
        """Rows lie within the whole, which is no larger than as many files could hold."""
        where = Bounds({}, self.label)
        where.check_whole(total, f"{_ROWS} of {name[:80]}", 0, max(1, shape[0]) * _MAX_RANKS)
        where.check_whole(first, f"first of {_ROWS} of {name[:80]}", 0, total - shape[0])

    def _piece(self, name: str) -> "_Piece":
        if name not in self._pieces:
            raise ArtifactError(f"{self.label}: has no {name}")
        return self._pieces[name][0]


@dataclass(frozen=True)
class _Piece:
    """Rows of a tensor in one file; ``total`` is None where it is the whole tensor."""

    file: Any
    shape: tuple[int, ...]
    first: int
    total: int | None

    def dtype(self, name: str) -> torch.dtype:
        return (self.file.get_slice(name)[:0] if self.shape else self.file.get_tensor(name)).dtype

    def copy_rows(self, name: str, local: Tensor, first: int, end: int) -> int:
        """Copy what this piece has of rows ``first`` to ``end`` into ``local``; how many."""
        low, high = max(first, self.first), min(end, self.first + self.shape[0])
        if low >= high:
            return 0
        part = self.file.get_slice(name)[low - self.first : high - self.first]
        local[low - first : high - first].copy_(part)
        return high - low


def _find(folder: Path, stem: str) -> list[Path]:
    """The file of a stem, or those of its ranks.

    Raises:
        ArtifactError: there is none, or one of several is absent.
    """
    single = folder / tensor_file(stem)
    if single.is_file():
        return [single]
    found = sorted(folder.glob(f"{stem}-rank*-of-*.safetensors"))
    if not found:
        raise ArtifactError(f"{single}: no such file")
    match = re.fullmatch(r".*-of-(\d+)", found[0].stem)
    size = int(match[1]) if match and len(match[1]) <= 6 else 0
    if not 1 <= size <= _MAX_RANKS:
        raise ArtifactError(f"{found[0]}: allowed: a file of 1 to {_MAX_RANKS} ranks")
    expected = [folder / tensor_file(stem, rank, size) for rank in range(size)]
    missing = next((path for path in expected if path not in found), None)
    if missing is not None or len(found) != size:
        raise ArtifactError(f"{missing or folder}: missing; {found[0].name} is one of {size} files")
    return expected


def _local(name: str, tensor: Tensor) -> tuple[Tensor, int, int | None]:
    """What lies here of a tensor, its first row, and the rows of the whole if it is sharded."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return tensor, 0, None
    sharded: Any = tensor  # a DTensor; its module is not imported for runs of one process
    if all(placement.is_replicate() for placement in placements):
        return sharded.to_local(), 0, None
    if sharded.device_mesh.ndim != 1 or not placements[0].is_shard(0):
        raise ArtifactError(
            f"{name}: placed as {placements}; allowed in a checkpoint: Shard(dim=0) over one "
            "dimension of ranks"
        )
    total, ranks = tensor.shape[0], sharded.device_mesh.size()
    chunk = -(-total // ranks)
    first = min(sharded.device_mesh.get_local_rank() * chunk, total)
    local = sharded.to_local()
    assert len(local) == min(chunk, total - first), "rows are cut as torch.chunk cuts them"
    return local, first, total
