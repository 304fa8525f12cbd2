"""Checkpoints: everything that the next step depends on, written so that a kill cannot spoil it.

A checkpoint is a folder ``step-00000100``: the model as :mod:`ptft.model` saves it, the optimiser's
moments as safetensors, and ``state.json`` with the digests of these files. It is written beside its
place and renamed when complete, so a folder of that name is whole unless its bytes were changed
later, which the digests show. Nothing is pickled.

Under FSDP2 each rank writes its own rows (``model-rank00000-of-00002.safetensors``) and the first
adds ``state.json`` once all have. Either form is read by any number of processes, sharded or not.
"""

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptft.artifact import read_json, verify_files
from ptft.checkpoint.machines import seen_by_all
from ptft.checkpoint.optimizer import restore_optimizer
from ptft.checkpoint.saving import CHECKPOINT_FORMAT, EXTRA, OPTIMIZER, TrainProgress, together
from ptft.distributed import ALONE, World
from ptft.errors import CheckpointError
from ptft.files.bounds import Bounds, shown
from ptft.files.digests import HeldFiles
from ptft.files.tensors import TensorFiles
from ptft.model.encoder import DualEncoder
from ptft.model.store import STATE, load_weights
from ptft.model_record import recorded_files

__all__ = [
    "checkpoints",
    "load_checkpoint",
    "prune_checkpoints",
    "read_state",
    "resume_checkpoint",
]


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
    return _load(path, *_verify(path, world), model, optimizer, extra or {}, world)


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
                state, kept = _verify(path, world)
            except CheckpointError as error:
                say(f"{error}; going on from the one before")
                continue
            return _load(path, state, kept, model, optimizer, extra or {}, world)
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


def _verify(path: Path, world: World) -> tuple[dict[str, Any], HeldFiles]:
    """``state.json`` of a checkpoint that is whole, and the files as they were then; each rank
    reads a part of them.

    Raises:
        CheckpointError: (on every rank) it is not.
    """
    state: dict[str, Any] = {}
    held: list[HeldFiles] = []

    def verify() -> dict[str, Any]:
        values = read_state(path)
        part = sorted(values["files"])[world.rank :: world.size]
        files = {name: values["files"][name] for name in part}
        held.append(verify_files(path, files, record=STATE))
        state.update(values)
        return {}

    together(world, verify)
    return state, held[0]


def read_state(path: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint.

    Raises:
        ArtifactError: it is absent, or no JSON.
        CheckpointError: it is of another format, or a part of it is not what it should be.
    """
    file = path / STATE
    values = read_json(file)
    if not isinstance(values, dict) or values.get("format") != CHECKPOINT_FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise CheckpointError(f"{path}: format {shown(found)}; this ptft reads {CHECKPOINT_FORMAT}")
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
    held: HeldFiles,
    model: DualEncoder,
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Tensor],
    world: World,
) -> TrainProgress:
    def fill() -> dict[str, Any]:
        load_weights(model, path)
        with TensorFiles(path, OPTIMIZER) as files:
            restore_optimizer(optimizer, state["optimizer"], files.read, where=str(path))
        _fill(extra, path)
        held.check_unchanged()
        return {}

    together(world, fill)
    return TrainProgress(**state["progress"])


def _fill(extra: Mapping[str, Tensor], path: Path) -> None:
    with ExitStack() as stack:
        saved = any(path.glob(f"{EXTRA}*.safetensors"))
        files = stack.enter_context(TensorFiles(path, EXTRA)) if saved else None
        different = sorted((set(files.names()) if files else set()) ^ extra.keys())
        if different:
            which = "lacks" if different[0] in extra else "holds"
            raise CheckpointError(f"{path}: {which} {different[0]}, unlike this recipe")
        for name, tensor in extra.items():
            assert files is not None
            files.fill(name, tensor)
