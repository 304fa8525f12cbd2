"""One checkpoint on its way to the disk: begun between two steps, written, and put in its place."""

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ptft.artifact import hash_files, write_json
from ptft.checkpoint.copies import HostCopies
from ptft.checkpoint.optimizer import pack_optimizer
from ptft.distributed import World
from ptft.errors import ArtifactError, CheckpointError, ModelError, TrainingError
from ptft.files.tensors import LocalTensors, is_sharded, local_tensors, tensor_file, write_local
from ptft.model.encoder import DualEncoder
from ptft.model.store import MODEL, STATE, describe_model

__all__ = ["CHECKPOINT_FORMAT", "EXTRA", "OPTIMIZER", "Saving", "TrainProgress", "together"]

OPTIMIZER = "optimizer"
EXTRA = "extra"
CHECKPOINT_FORMAT = 2  # of state.json


@dataclass
class TrainProgress:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        seen: samples seen, the position in the order of samples.
        skipped: samples that could not be read so far.
        faults: of which kinds they were, and the names of the first (``data.faults.Tally``).
        trackers: what a tracker needs to go on in the same run (W&B's run id).
        scaler: state of the loss scaler (fp16).
        guard: state of what watches the loss.
        best: state of what keeps the best validated model.
    """

    step: int = 0
    seen: int = 0
    skipped: int = 0
    faults: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    trackers: dict[str, str] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)


class Saving:
    """A checkpoint of the present state; every rank has one.

    Args:
        folder: the run's ``checkpoints``, the same folder for every rank.
        model: what learns; sharded by FSDP2, or whole on every rank.
        optimizer: any whose state is tensors, numbers and strings; its groups have ``names``.
        progress: where the run stands.
        extra: further tensors that the next step depends on, by name (averaged weights, say);
            sharded as the model is, or alike on every rank.
        world: the processes that train.

    Attributes:
        final: where it will lie.
        progress: a copy.
        sharded: whether every rank writes a part; else the first writes all.
        parts: what this rank writes, by the names of its files; sharing the state's memory.

    Raises:
        CheckpointError: the optimiser's state holds what no checkpoint can.
        ArtifactError: a tensor is sharded in another way than by rows.
    """

    def __init__(
        self,
        folder: Path,
        model: DualEncoder,
        optimizer: torch.optim.Optimizer,
        progress: TrainProgress,
        extra: Mapping[str, Tensor],
        world: World,
    ) -> None:
        self.final = folder / f"step-{progress.step:08d}"
        self._unfinished = folder / f".{self.final.name}.partial"
        self._world = world
        values = asdict(progress)
        self.progress = TrainProgress(**values)
        tensors, packed = pack_optimizer(optimizer)
        self._state = {"format": CHECKPOINT_FORMAT, "progress": values, "optimizer": packed}
        self._described: dict[str, Any] = {}
        stems = {MODEL: model.state_dict(), OPTIMIZER: tensors, **({EXTRA: extra} if extra else {})}
        self.sharded = is_sharded(stems[MODEL].values())
        place = (world.rank, world.size) if self.sharded else (0, 1)
        self.parts: dict[str, LocalTensors] = {}
        if self.sharded or world.first:
            self.parts = {
                tensor_file(stem, *place): local_tensors(part, whole=world.first)
                for stem, part in stems.items()
            }

    @property
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What this rank writes, by file and name."""
        return {name: part.tensors for name, part in self.parts.items()}

    def copy(self, copies: HostCopies) -> None:
        """Write copies, so that the state may go on changing."""
        taken = copies.take(self.tensors)
        self.parts = {
            name: replace(part, tensors=taken[name], apart=True)
            for name, part in self.parts.items()
        }

    def describe(self, model: DualEncoder) -> None:
        """Begin its folder; the first rank, before any writes."""
        shutil.rmtree(self._unfinished, ignore_errors=True)
        describe_model(model, self._unfinished)
        self._described = hash_files(self._unfinished)

    def write(self) -> dict[str, Any]:
        """Write this rank's part to the disk; digests and sizes of its files."""
        with ThreadPoolExecutor() as pool:  # the disk works while the next file is made and hashed
            synced = []
            for name, part in self.parts.items():
                write_local(self._unfinished / name, part)
                synced.append(pool.submit(_sync, self._unfinished / name))
            hashes = hash_files(self._unfinished, self.parts)
            for each in synced:
                each.result()
        return hashes

    def complete(self, files: Mapping[str, Any]) -> None:
        """Put it in its place; the first rank, once all have written ``files``."""
        write_json(self._unfinished / STATE, {**self._state, "files": {**self._described, **files}})
        for path in [*self._unfinished.rglob("*"), self._unfinished]:
            _sync(path)
        shutil.rmtree(self.final, ignore_errors=True)  # of a run that was resumed from before it
        self._unfinished.rename(self.final)
        _sync(self.final.parent)

    def failed(self, error: Exception) -> CheckpointError:
        """What to raise; what was there before is as it was."""
        if self._world.first:
            shutil.rmtree(self._unfinished, ignore_errors=True)
        return CheckpointError(f"{self.final}: cannot be written: {error}")


def together(world: World, work: Callable[[], Mapping[str, Any] | None]) -> dict[str, Any]:
    """Do something on every rank; what all gave, as one.

    Raises:
        CheckpointError: on every rank, if one failed.
    """
    expected = (OSError, SafetensorError, ArtifactError, CheckpointError, ModelError)
    try:
        parts = world.together(work, expected)
    except TrainingError as error:
        raise CheckpointError(str(error)) from None
    return {key: value for part in parts for key, value in (part or {}).items()}


def _sync(path: Path) -> None:
    """Force a file, or the entries of a folder, to disk, so that no rename is ahead of them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
