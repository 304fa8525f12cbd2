"""What a run says while it goes: a progress bar, a log of figures, TensorBoard or W&B."""

import importlib.util
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ptft.artifact import RunFiles, write_atomic
from ptft.errors import MissingExtraError
from ptft.recipe import Recipe

__all__ = ["Report", "check_trackers", "say"]


class _Tracker(Protocol):
    def log(self, figures: Mapping[str, float], step: int) -> None: ...
    def close(self) -> None: ...


class Report:
    """Progress on stderr, one JSON line a report in ``metrics.jsonl``, and the recipe's trackers.

    Args:
        folder: the run's.
        total: samples of the whole run.
        seen: samples seen before (a resumed run); later lines of the log are dropped.
        trackers: state of the trackers from the checkpoint; what they need next time is put there.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        *,
        total: int,
        seen: int,
        trackers: dict[str, str],
        console: Console,
    ) -> None:
        self._log = folder / RunFiles.LOG
        self._drop_after(seen)
        self._skipped = folder / RunFiles.SKIPPED
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
        )
        self._task: TaskID = self._progress.add_task(
            recipe.name, total=total, completed=seen, figures=""
        )
        self._plain = time.monotonic()
        self._total = total
        self._trackers: list[_Tracker] = [
            _TensorBoard(folder / RunFiles.TENSORBOARD, seen // recipe.optim.global_batch)
            if name == "tensorboard"
            else _WandB(folder, recipe, trackers)
            for name in recipe.run.trackers
        ]

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        for tracker in self._trackers:
            tracker.close()

    def step(self, seen: int, figures: Mapping[str, float]) -> None:
        """Move the bar; on a plain stream, print a line every ten seconds."""
        shown = "  ".join(
            f"{name} {figures[name]:.4g}"
            for name in ("loss", "accuracy", "samples_per_second")
            if name in figures
        ).replace("samples_per_second", "samples/s")
        self._progress.update(self._task, completed=seen, figures=shown)
        if not self._console.is_terminal and time.monotonic() - self._plain > 10.0:
            self._plain = time.monotonic()
            say(self._console, f"{seen:,}/{self._total:,} samples  {shown}")

    def log(self, step: int, seen: int, figures: Mapping[str, float]) -> None:
        """Write figures to the log and the trackers."""
        self._append(self._log, {"step": step, "seen": seen, **figures})
        for tracker in self._trackers:
            tracker.log(figures, step)

    def skipped(self, samples: list[tuple[str, str]]) -> None:
        """Record samples that could not be read: name and reason."""
        for name, reason in samples:
            self._append(self._skipped, {"name": name, "reason": reason})

    def message(self, text: str) -> None:
        """A line above the bar."""
        say(self._console, text)

    @staticmethod
    def _append(path: Path, values: Mapping[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def _drop_after(self, seen: int) -> None:
        """Forget what a killed run logged beyond the checkpoint it goes on from."""
        if not self._log.is_file():
            return
        kept = []
        for line in self._log.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["seen"] <= seen:
                    kept.append(line)
            except (ValueError, KeyError):
                continue  # a line that the kill cut
        write_atomic(self._log, "".join(f"{line}\n" for line in kept))


def check_trackers(recipe: Recipe) -> None:
    """Check that the recipe's trackers are installed, before anything is built or written.

    Raises:
        MissingExtraError: W&B is asked for and absent.
    """
    if "wandb" in recipe.run.trackers and importlib.util.find_spec("wandb") is None:
        raise MissingExtraError("wandb", "wandb")


def say(console: Console, text: str) -> None:
    """A plain line, as it is: no markup, no wrapping where nobody's terminal is narrow."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


class _TensorBoard:
    def __init__(self, folder: Path, step: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its protobuf
            from torch.utils.tensorboard.writer import SummaryWriter
        self._writer = SummaryWriter(folder, purge_step=step or None)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, folder: Path, recipe: Recipe, state: dict[str, str]) -> None:
        import wandb

        self._run = wandb.init(
            project="ptft",
            name=recipe.name,
            dir=folder,
            config=recipe.model_dump(mode="json", by_alias=True),
            id=state.get("wandb"),
            resume="allow",
        )
        state["wandb"] = self._run.id

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()
