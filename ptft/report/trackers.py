"""Where a run's figures go beside its own log: TensorBoard, W&B, trackio.

A tracker that numbers its runs itself puts what it needs to go on in the same one into the state
that it is given, which lies in the checkpoint.
"""

import contextlib
import importlib.util
import secrets
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ptft.artifact import RunFiles
from ptft.errors import MissingExtraError
from ptft.recipe import Recipe, RunSection
from ptft.recipe.publication import published_recipe

__all__ = ["Tracker", "check_trackers", "open_trackers", "public_config"]

_PROJECT = "ptft"
_OPTIONAL = ("wandb", "trackio")  # each a module and an extra of that name


class Tracker(Protocol):
    """Takes figures until it is closed."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Take figures by name, at an optimiser step."""

    def close(self) -> None:
        """Send what is left."""


def check_trackers(section: RunSection) -> None:
    """Check that the recipe's trackers are installed, before anything is built or written.

    Raises:
        MissingExtraError: one is absent.
    """
    for name in _OPTIONAL:
        if name in section.trackers and importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, name)


def open_trackers(
    folder: Path, recipe: Recipe, *, step: int, state: dict[str, str]
) -> list[Tracker]:
    """Open those of ``run.trackers``, each in the run that it was in before.

    Args:
        folder: the run's.
        step: optimiser steps done; what a tracker holds beyond them is of a part that was lost.
        state: of the trackers, from the checkpoint; what they need next time is put there.
    """
    opened: list[Tracker] = []
    for name in recipe.run.trackers:
        match name:
            case "tensorboard":
                opened.append(_TensorBoard(folder / RunFiles.TENSORBOARD, step))
            case "wandb":
                opened.append(_WandB(folder, recipe, state))
            case "trackio":
                opened.append(_Trackio(recipe, state))
    return opened


def public_config(recipe: Recipe) -> dict[str, Any]:
    """What a tracker, which may be a service, is told of the recipe: no folders of this machine."""
    return published_recipe(recipe)[0].model_dump(mode="json", by_alias=True)


class _TensorBoard:
    def __init__(self, folder: Path, step: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its protobuf
            from torch.utils.tensorboard.writer import SummaryWriter
        # events from purge_step on are hidden: the killed part's begin at the step after this one
        self._writer = SummaryWriter(folder, purge_step=step + 1 if step else None)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, folder: Path, recipe: Recipe, state: dict[str, str]) -> None:
        import wandb

        self._run = wandb.init(
            project=_PROJECT,
            name=recipe.name,
            dir=folder,
            config=public_config(recipe),
            id=state.get("wandb"),
            resume="allow",
        )
        state["wandb"] = self._run.id

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """trackio keeps its runs in a folder of the user's own (``trackio show --project ptft``), and
    goes on with a run by its name, so the name is the recipe's and a few random digits."""

    def __init__(self, recipe: Recipe, state: dict[str, str]) -> None:
        state.setdefault("trackio", f"{recipe.name}-{secrets.token_hex(3)}")
        with _stdout_to_stderr():
            import trackio

            self._run = trackio.init(
                project=_PROJECT,
                name=state["trackio"],
                config=public_config(recipe),
                resume="allow",
                embed=False,
            )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        import trackio

        with _stdout_to_stderr():
            trackio.finish()  # Run.finish would be called once more at exit


def _stdout_to_stderr() -> contextlib.AbstractContextManager[object]:
    """trackio greets on stdout, which is for results."""
    return contextlib.redirect_stdout(sys.stderr)
