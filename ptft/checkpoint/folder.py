"""Checkpoints: everything that the next step depends on, written so that a kill cannot spoil it.

A checkpoint is a folder ``step-00000100``: the model as :mod:`ptft.model` saves it, the optimiser's
moments and random states as safetensors, and ``state.json`` with the digests of these files. It
is written beside its place and renamed when complete, so a folder of that name is whole unless its
bytes were changed later, which the digests show. Nothing is pickled.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ptft.artifact import hash_files, read_json, verify_files, write_json
from ptft.checkpoint.optimizer import pack_optimizer, restore_optimizer
from ptft.errors import ArtifactError, CheckpointError
from ptft.model.encoder import DualEncoder
from ptft.model.store import load_weights, save_model

__all__ = ["Progress", "checkpoints", "load_checkpoint", "prune_checkpoints", "save_checkpoint"]

_OPTIMIZER = "optimizer.safetensors"
_EXTRA = "extra.safetensors"
_STATE = "state.json"
_FORMAT = 2  # of state.json


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        seen: samples seen, the position in the order of samples.
        skipped: samples that could not be read so far.
        trackers: what a tracker needs to go on in the same run (W&B's run id).
        scaler: state of the loss scaler (fp16).
    """

    step: int = 0
    seen: int = 0
    skipped: int = 0
    seconds: float = 0.0
    trackers: dict[str, str] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    model: DualEncoder,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    extra: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write ``folder/step-…`` and return it.

    Args:
        folder: the run's ``checkpoints``.
        model: what learns.
        optimizer: any whose state is tensors, numbers and strings; its groups have ``names``.
        progress: where the run stands.
        extra: further tensors that the next step depends on, by name (averaged weights, say).

    Raises:
        CheckpointError: the disk is full or not writable; what was there before is untouched.
    """
    final = folder / f"step-{progress.step:08d}"
    unfinished = folder / f".{final.name}.partial"
    tensors, values = pack_optimizer(optimizer)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        save_model(model, unfinished)
        _write(unfinished / _OPTIMIZER, {**tensors, **_random_states()})
        if extra:
            _write(unfinished / _EXTRA, extra)
        write_json(
            unfinished / _STATE,
            {
                "format": _FORMAT,
                "progress": asdict(progress),
                "optimizer": values,
                "files": hash_files(unfinished),
            },
        )
        _sync(unfinished)
        shutil.rmtree(final, ignore_errors=True)  # of a run that was resumed from before it
        unfinished.rename(final)
    except (OSError, SafetensorError) as error:
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
) -> Progress:
    """Put a checkpoint back into a model and an optimiser built from the same recipe, in place.

    Args:
        path: the checkpoint.
        model, optimizer: what to fill.
        extra: the tensors that :func:`save_checkpoint` was given, by the same names; filled.

    Raises:
        CheckpointError: it is incomplete, its bytes changed, or it fits another model.
    """
    try:
        values = read_json(path / _STATE)
        if values.get("format") != _FORMAT:
            raise CheckpointError(
                f"{path}: format {values.get('format')!r}; this ptft reads {_FORMAT}"
            )
        verify_files(path, values["files"])
        load_weights(model, path)
        tensors = load_file(path / _OPTIMIZER)
        read = partial(_laid_out, tensors)
        restore_optimizer(optimizer, values["optimizer"], read, where=str(path))
        _restore_random_states(tensors)
        _fill(extra or {}, path)
        return Progress(**values["progress"])
    except (ArtifactError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints, and what a killed save left."""
    for path in checkpoints(folder)[keep:]:
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".step-*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)


def _laid_out(tensors: Mapping[str, Tensor], label: str, parameter: Tensor | None) -> Tensor:
    tensor = tensors[label]
    if parameter is None or tensor.shape != parameter.shape:
        return tensor
    # The fused update walks both as flat memory: the layouts must agree (channels-last).
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def _fill(extra: Mapping[str, Tensor], path: Path) -> None:
    saved = load_file(path / _EXTRA) if (path / _EXTRA).is_file() else {}
    different = sorted(saved.keys() ^ extra.keys())
    if different:
        which = "lacks" if different[0] in extra else "holds"
        raise CheckpointError(f"{path}: {which} {different[0]}, unlike this recipe")
    with torch.no_grad():
        for name, tensor in extra.items():
            tensor.copy_(saved[name])


def _random_states() -> dict[str, Tensor]:
    states = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng/cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_states(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["rng/cpu"])
    if "rng/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng/cuda"])


def _sync(folder: Path) -> None:
    """Force the files of a folder to disk, so that the rename is not ahead of them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
