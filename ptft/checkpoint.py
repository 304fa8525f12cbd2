"""Checkpoints: everything that the next step depends on, written so that a kill cannot spoil it.

A checkpoint is a folder ``step-00000100``: the model as :mod:`ptft.model` saves it, the optimiser's
moments and random states as safetensors, and ``state.json`` with the digests of the other files. It
is written beside its place and renamed when complete, so a folder of that name is whole unless its
bytes were changed later, which the digests show. Nothing is pickled.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ptft.artifact import hash_files, read_json, verify_files, write_json
from ptft.errors import ArtifactError, CheckpointError
from ptft.model.encoder import DualEncoder
from ptft.model.store import load_weights, save_model
from ptft.optim import parameter_names

__all__ = ["Progress", "checkpoints", "load_checkpoint", "prune_checkpoints", "save_checkpoint"]

_OPTIMIZER = "optimizer.safetensors"
_STATE = "state.json"


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
    folder: Path, model: DualEncoder, optimizer: torch.optim.Optimizer, progress: Progress
) -> Path:
    """Write ``folder/step-…`` and return it.

    Raises:
        CheckpointError: the disk is full or not writable; what was there before is untouched.
    """
    final = folder / f"step-{progress.step:08d}"
    partial = folder / f".{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_model(model, partial)
        save_file(dict(_optimizer_tensors(optimizer)), partial / _OPTIMIZER)
        values = {"progress": asdict(progress), "files": hash_files(partial)}
        write_json(partial / _STATE, values)
        _sync(partial)
        shutil.rmtree(final, ignore_errors=True)  # of a run that was resumed from before it
        partial.rename(final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"{final}: cannot be written: {error}") from error
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in ``folder``, newest first."""
    return sorted(folder.glob("step-[0-9]*"), reverse=True)


def load_checkpoint(path: Path, model: DualEncoder, optimizer: torch.optim.Optimizer) -> Progress:
    """Put a checkpoint back into a model and an optimiser built from the same recipe.

    Raises:
        CheckpointError: it is incomplete, its bytes changed, or it fits another model.
    """
    try:
        values = read_json(path / _STATE)
        verify_files(path, values["files"])
        load_weights(model, path)
        _restore_optimizer(optimizer, load_file(path / _OPTIMIZER), path)
        return Progress(**values["progress"])
    except (ArtifactError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints, and what a killed save left."""
    for path in checkpoints(folder)[keep:]:
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".step-*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    names = parameter_names(optimizer)
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            yield f"{key}/{names[index]}", torch.as_tensor(value).detach().cpu().contiguous()
    yield "rng/cpu", torch.get_rng_state()
    if torch.cuda.is_available():
        yield "rng/cuda", torch.cuda.get_rng_state()


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: Path
) -> None:
    number = {name: index for index, name in enumerate(parameter_names(optimizer))}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for label, tensor in tensors.items():
        key, _, name = label.partition("/")
        if key == "rng":
            continue
        if name not in number:
            raise CheckpointError(f"{path}: holds {name}, which does not learn in this recipe")
        parameter = parameters[number[name]]
        if tensor.shape == parameter.shape:
            # The fused update walks both as flat memory: the layouts must agree (channels-last).
            tensor = torch.empty_like(parameter).copy_(tensor)
        state.setdefault(number[name], {})[key] = tensor
    missing = [name for name, index in number.items() if index not in state]
    if state and missing:
        raise CheckpointError(f"{path}: has no optimiser state for {missing[0]}")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    torch.set_rng_state(tensors["rng/cpu"])
    if "rng/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng/cuda"])


def _sync(folder: Path) -> None:
    """Force the files of a folder to disk, so that the rename is not ahead of them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
