"""Checkpoints that are written while the steps go on.

Between two steps the state is copied in memory; a thread then writes the copy, forces it to the
disk and puts it in its place, so that a run is blocked for the copy alone. Of one that a kill
leaves half-written, the one before is there. Hashing, writing and waiting for the disk run no
Python, so the thread takes a core and not the steps' turn.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptft.checkpoint.copies import HostCopies
from ptft.checkpoint.saving import Saving, TrainProgress, together
from ptft.distributed import ALONE, World
from ptft.errors import CheckpointError
from ptft.model.encoder import DualEncoder

__all__ = ["Background", "save_checkpoint"]


class Background:
    """Writes the checkpoints of a run, at most one at a time. Every rank has one, and calls
    :meth:`begin` and :meth:`finish` together with the others.

    Attributes:
        prepared: whether there is memory for copies, or it is being taken.
    """

    def __init__(self, world: World = ALONE) -> None:
        self._world = world
        self._copies = HostCopies()
        self._pool: ThreadPoolExecutor | None = None
        self._saving: Saving | None = None
        self._task: Future[Any] | None = None
        self.prepared = False
        self._seconds = 0.0

    @property
    def pending(self) -> bool:
        """Whether one was begun that is not finished; the same on every rank."""
        return self._saving is not None

    @property
    def busy(self) -> bool:
        """Whether this rank still writes."""
        return self._task is not None and not self._task.done()

    def expected_seconds(self) -> float:
        """How long the next one will take to be written, by the last one, and what this rank still
        writes."""
        return self._seconds * (2 if self.busy else 1)

    def prepare(
        self,
        model: DualEncoder,
        optimizer: torch.optim.Optimizer,
        extra: Mapping[str, Tensor],
    ) -> None:
        """Take the memory for copies, beside the steps before the first checkpoint; the optimiser
        has its state."""
        if self.prepared:
            return
        self.prepared = True
        saving = Saving(Path(), model, optimizer, TrainProgress(), extra, self._world)
        tensors = [tensor for part in saving.tensors.values() for tensor in part.values()]
        self._submit(self._copies.fit, tensors)

    def begin(
        self,
        folder: Path,
        model: DualEncoder,
        optimizer: torch.optim.Optimizer,
        progress: TrainProgress,
        extra: Mapping[str, Tensor],
        *,
        copied: bool,
    ) -> None:
        """Begin the checkpoint of the present state.

        Args:
            folder, model, optimizer, progress, extra: as :class:`~ptft.checkpoint.saving.Saving`
                takes them.
            copied: False: nothing changes before :meth:`finish`, and no copy is made.

        Raises:
            CheckpointError: (on every rank) it cannot be begun.
        """
        assert not self.pending, "one checkpoint at a time"
        if self._task is not None:  # memory that is being taken
            self._task.result()
        begun: list[Saving] = []

        def prepare() -> None:
            saving = Saving(folder, model, optimizer, progress, extra, self._world)
            begun.append(saving)
            if copied:
                self.prepared = True
                saving.copy(self._copies)
            if self._world.first:
                saving.describe(model)

        try:
            together(self._world, prepare)
        except CheckpointError as error:
            where = folder / f"step-{progress.step:08d}"
            raise begun[0].failed(error) if begun else _refused(where, error) from error
        [self._saving] = begun
        if self._saving.parts:
            self._submit(self._write, self._saving)

    def finish(self) -> TrainProgress | None:
        """Wait until the checkpoint that was begun is there; where the run stood at it. None: none
        was begun.

        Raises:
            CheckpointError: (on every rank) the disk is full or not writable; what was there
                before is untouched.
        """
        saving, task = self._saving, self._task
        self._saving = self._task = None
        if saving is None:
            return None
        world = self._world
        try:
            files = together(world, dict if task is None else task.result)
            if saving.sharded:  # once all have written
                together(world, lambda: saving.complete(files) if world.first else None)
        except CheckpointError as error:
            raise saving.failed(error) from error
        return saving.progress

    def close(self) -> TrainProgress | None:
        """Wait for what this rank writes, without the others, as a run ends by an error; where the
        run stood at the checkpoint, if one was begun that is there now.

        Raises:
            CheckpointError: it cannot be written.
        """
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        saving, task = self._saving, self._task
        self._saving = self._task = None
        if saving is None or task is None:
            return None
        try:
            together(ALONE, task.result)
        except CheckpointError as error:
            raise saving.failed(error) from error
        return None if saving.sharded else saving.progress

    def _submit(self, work: Any, *arguments: Any) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._task = self._pool.submit(work, *arguments)

    def _write(self, saving: Saving) -> dict[str, Any]:
        began = time.monotonic()
        files = saving.write()
        if not saving.sharded:
            saving.complete(files)
        self._seconds = time.monotonic() - began
        return files


def save_checkpoint(
    folder: Path,
    model: DualEncoder,
    optimizer: torch.optim.Optimizer,
    progress: TrainProgress,
    extra: Mapping[str, Tensor] | None = None,
    *,
    world: World = ALONE,
) -> Path:
    """Write ``folder/step-…`` and return it once it is there. Every rank calls it.

    Args:
        folder, model, optimizer, progress, extra, world: as
            :class:`~ptft.checkpoint.saving.Saving` takes them.

    Raises:
        CheckpointError: (on every rank) the disk is full or not writable; what was there before
            is untouched.
    """
    one = Background(world)
    try:
        one.begin(folder, model, optimizer, progress, extra or {}, copied=False)
        one.finish()
    finally:
        one.close()
    return folder / f"step-{progress.step:08d}"


def _refused(where: Path, error: CheckpointError) -> CheckpointError:
    return CheckpointError(f"{where}: cannot be written: {error}")
