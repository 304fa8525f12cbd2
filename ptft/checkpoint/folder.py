"""Checkpoints: everything that the next step depends on, written so that a kill cannot spoil it.

A checkpoint is a folder ``step-00000100``: the model as :mod:`ptft.model` saves it, the optimiser's
moments as safetensors, and ``state.json`` with the digests of these files. It is written beside its
place and renamed when complete, so a folder of that name is whole unless its bytes were changed
later, which the digests show. Nothing is pickled.

Under FSDP2 each rank writes its own rows (``model-rank00000-of-00002.safetensors``) and the first
adds ``state.json`` once all have. Either form is read by any number of processes, sharded or not.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ptft.artifact import hash_files, read_json, verify_files, write_json
from ptft.checkpoint.machines import seen_by_all
from ptft.checkpoint.optimizer import pack_optimizer, restore_optimizer
from ptft.distributed import ALONE, World
from ptft.errors import ArtifactError, CheckpointError, ModelError, TrainingError
from ptft.files.bounds import Bounds, shown
from ptft.files.tensors import TensorFiles, is_sharded, tensor_file, write_tensors
from ptft.model.encoder import DualEncoder
from ptft.model.store import MODEL, describe_model, load_weights
from ptft.model_record import recorded_files

__all__ = [
    "TrainProgress",
    "checkpoints",
    "load_checkpoint",
    "prune_checkpoints",
    "read_state",
    "resume_checkpoint",
    "save_checkpoint",
]

_OPTIMIZER = "optimizer"
_EXTRA = "extra"
_STATE = "state.json"
_FORMAT = 2  # of state.json


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


def save_checkpoint(
    folder: Path,
    model: DualEncoder,
    optimizer: torch.optim.Optimizer,
    progress: TrainProgress,
    extra: Mapping[str, Tensor] | None = None,
    *,
    world: World = ALONE,
) -> Path:
    """Write ``folder/step-…`` and return it. Every rank calls it.

    Args:
        folder: the run's ``checkpoints``, the same folder for every rank.
        model: what learns; sharded by FSDP2, or whole on every rank.
        optimizer: any whose state is tensors, numbers and strings; its groups have ``names``.
        progress: where the run stands.
        extra: further tensors that the next step depends on, by name (averaged weights, say);
            sharded as the model is, or alike on every rank.
        world: the processes that train.

    Raises:
        CheckpointError: (on every rank) the disk is full or not writable; what was there before
            is untouched.
    """
    final = folder / f"step-{progress.step:08d}"
    unfinished = folder / f".{final.name}.partial"
    tensors, values = pack_optimizer(optimizer)
    parts = {MODEL: model.state_dict(), _OPTIMIZER: tensors, **({_EXTRA: extra} if extra else {})}
    sharded = is_sharded(parts[MODEL].values())

    def describe() -> dict[str, Any]:
        if not world.first:
            return {}
        shutil.rmtree(unfinished, ignore_errors=True)
        describe_model(model, unfinished)
        return hash_files(unfinished)

    def write() -> dict[str, Any]:
        if not (sharded or world.first):
            return {}
        place = (world.rank, world.size) if sharded else (0, 1)
        names = {tensor_file(stem, *place): part for stem, part in parts.items()}
        with ThreadPoolExecutor() as pool:  # the disk works while the next file is made and hashed
            synced = []
            for name, part in names.items():
                write_tensors(unfinished / name, part, whole=world.first)
                synced.append(pool.submit(_sync, unfinished / name))
            hashes = hash_files(unfinished, names)
            for each in synced:
                each.result()
        return hashes

    def complete() -> dict[str, Any]:
        if world.first:
            state = {"format": _FORMAT, "progress": asdict(progress), "optimizer": values}
            write_json(unfinished / _STATE, {**state, "files": files})
            for path in [*unfinished.rglob("*"), unfinished]:
                _sync(path)
            shutil.rmtree(final, ignore_errors=True)  # of a run that was resumed from before it
            unfinished.rename(final)
            _sync(folder)
        return {}

    try:
        files = _together(world, describe)
        files |= _together(world, write)
        _together(world, complete)
    except CheckpointError as error:
        if world.first:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(f"{final}: cannot be written: {error}") from error
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in ``folder``, newest first."""
    return sorted(folder.glob("step-[0-9]*"), reverse=True)


def load_checkpoint(
    path: Path,
    model: DualEncoder,
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Tensor] | None = None,
    *,
    world: World = ALONE,
) -> TrainProgress:
    """Put a checkpoint back into a model and an optimiser built from the same recipe, in place.

    Every rank calls it and reads the rows that it needs; how many ranks wrote it does not matter.

    Args:
        path: the checkpoint.
        model, optimizer: what to fill.
        extra: the tensors that :func:`save_checkpoint` was given, by the same names; filled.
        world: the processes that train.

    Raises:
        CheckpointError: (on every rank) it is incomplete, its bytes changed, or it fits another
            model. Nothing was filled unless it is whole.
    """
    return _load(path, _verify(path, world), model, optimizer, extra or {}, world)


def resume_checkpoint(
    folder: Path,
    model: DualEncoder,
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Tensor] | None = None,
    *,
    world: World = ALONE,
    say: Callable[[str], None],
) -> TrainProgress:
    """Load the newest checkpoint of a folder that is whole; from the start where there is none.

    Args:
        folder: the run's ``checkpoints``, as the first rank has them: a machine that does not see
            it is sent a copy for as long as it takes.
        say: takes a line about each that is not whole.
        model, optimizer, extra, world: as :func:`load_checkpoint` takes them.

    Raises:
        CheckpointError: one that is whole fits another model.
    """
    names = world.broadcast([path.name for path in checkpoints(folder)])
    for name in names:
        with ExitStack() as held:
            try:
                path = held.enter_context(seen_by_all(folder / name, world))
                state = _verify(path, world)
            except CheckpointError as error:
                say(f"{error}; going on from the one before")
                continue
            return _load(path, state, model, optimizer, extra or {}, world)
    if names:
        say(f"{folder}: none of {len(names)} checkpoints is whole; starting again")
    return TrainProgress()


def prune_checkpoints(folder: Path, keep: int, step: int) -> None:
    """Delete all but the newest ``keep`` checkpoints, and what a killed save left.

    Args:
        folder: the run's ``checkpoints``.
        keep: at least 1.
        step: at which the run stands. A checkpoint beyond it is of a time before the run was
            resumed from an older one, since it was not whole.
    """
    kept = 0
    for path in checkpoints(folder):
        if int(path.name.removeprefix("step-")) <= step and kept < keep:
            kept += 1
        else:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".step-*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def _verify(path: Path, world: World) -> dict[str, Any]:
    """``state.json`` of a checkpoint that is whole; each rank reads a part of its files.

    Raises:
        CheckpointError: (on every rank) it is not.
    """
    state: dict[str, Any] = {}

    def verify() -> dict[str, Any]:
        values = read_state(path)
        part = sorted(values["files"])[world.rank :: world.size]
        verify_files(path, {name: values["files"][name] for name in part}, record=_STATE)
        state.update(values)
        return {}

    _together(world, verify)
    return state


def read_state(path: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint.

    Raises:
        ArtifactError: it is absent, or no JSON.
        CheckpointError: it is of another format, or a part of it is not what it should be.
    """
    file = path / _STATE
    values = read_json(file)
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise CheckpointError(f"{path}: format {shown(found)}; this ptft reads {_FORMAT}")
    if absent := {"progress", "optimizer", "files"} - values.keys():
        raise CheckpointError(f"{file}: lacks {', '.join(sorted(absent))}")
    recorded_files(values, file)
    Bounds(values["optimizer"], f"{file}: optimizer", CheckpointError)
    progress = Bounds(values["progress"], f"{file}: progress", CheckpointError)
    progress.keys(TrainProgress.__dataclass_fields__)
    for key in ("step", "seen", "skipped"):
        progress.whole(key, 0, 2**62)
    progress.number("seconds", 0.0, 1e15)
    for key in ("faults", "trackers", "scaler", "guard", "best"):
        Bounds(values["progress"].get(key, {}), f"{file}: progress: {key}", CheckpointError)
    return values


def _load(
    path: Path,
    state: Mapping[str, Any],
    model: DualEncoder,
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Tensor],
    world: World,
) -> TrainProgress:
    def fill() -> dict[str, Any]:
        load_weights(model, path)
        with TensorFiles(path, _OPTIMIZER) as files:
            restore_optimizer(optimizer, state["optimizer"], files.read, where=str(path))
        _fill(extra, path)
        return {}

    _together(world, fill)
    return TrainProgress(**state["progress"])


def _together(world: World, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do something on every rank; what all gave, as one.

    Raises:
        CheckpointError: on every rank, if one failed.
    """
    expected = (OSError, SafetensorError, ArtifactError, CheckpointError, ModelError)
    try:
        parts = world.together(work, expected)
    except TrainingError as error:
        raise CheckpointError(str(error)) from None
    return {key: value for part in parts for key, value in part.items()}


def _fill(extra: Mapping[str, Tensor], path: Path) -> None:
    with ExitStack() as stack:
        saved = any(path.glob(f"{_EXTRA}*.safetensors"))
        files = stack.enter_context(TensorFiles(path, _EXTRA)) if saved else None
        different = sorted((set(files.names()) if files else set()) ^ extra.keys())
        if different:
            which = "lacks" if different[0] in extra else "holds"
            raise CheckpointError(f"{path}: {which} {different[0]}, unlike this recipe")
        for name, tensor in extra.items():
            assert files is not None
            files.fill(name, tensor)


def _sync(path: Path) -> None:
    """Force a file, or the entries of a folder, to disk, so that no rename is ahead of them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
