"""What a run's data held when it began, kept in its folder: a run that goes on is held against it.

A resumed run is promised to end as an uninterrupted one would, which other data cannot. So every
set that a recipe names is recorded, and the folders of models that it starts or learns from.
"""

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ptft.artifact import RunFiles, write_atomic
from ptft.data import SampleSet, open_split
from ptft.data.identity import Identity, difference, identify, identify_files
from ptft.distributed import World
from ptft.errors import ArtifactError, DataError
from ptft.model_source import fetch_source, model_folder
from ptft.recipe import (
    ArchModel,
    DataSection,
    Recipe,
    dump_recipe,
    load_foreign,
    recipe_digest,
)
from ptft.recipe.check import Split, splits_of
from ptft.runs.changes import recipe_changes
from ptft.runs.folder import RunRecord, write_run
from ptft.runs.opening import Resume

__all__ = [
    "RunOptions",
    "accepted_now",
    "hold_against",
    "hold_run",
    "read_identities",
    "record_data",
    "sets_of",
]

Sets = Mapping[str, Callable[[], SampleSet]]
"""Key of a recipe -> opens the set that lies there."""

_MODEL_FILES = (".safetensors", ".json", ".txt")


@dataclass(frozen=True)
class RunOptions:
    """How a run begins or goes on.

    Attributes:
        resume: go on with one that is there; ``"auto"``: or begin where none is.
        accept: go on although its data or its recipe changed.
        record: keep what its data hold.
        began: when this part of it began, by ``time.monotonic``.
    """

    resume: Resume = False
    accept: bool = False
    record: bool = True
    began: float = field(default_factory=time.monotonic)

    def record_data(self, folder: Path, recipe: Recipe, world: World) -> None:
        """Record what a new run's data hold; the first rank does."""
        if self.record:
            world.on_first(lambda: record_data(folder, recipe))

    def compare_data(
        self, folder: Path, recipe: Recipe, record: RunRecord, world: World
    ) -> list[str]:
        """See :func:`hold_run`; the first rank does, and every rank gets the notes."""
        if not self.record:
            return []
        return world.on_first(lambda: hold_run(folder, recipe, record, accept=self.accept))


def record_data(folder: Path, recipe: Recipe, sets: Sets | None = None) -> None:
    """Write what the data of a recipe hold into a run's folder.

    Args:
        sets: see :func:`sets_of`, whose sets they are unless others are given.

    Raises:
        DataError, ModelError: what the recipe names cannot be read.
    """
    _write(folder, dict(_identities(recipe, sets_of(recipe) if sets is None else sets, {})))


def hold_against(
    folder: Path, recipe: Recipe, *, accept: bool, sets: Sets | None = None
) -> tuple[list[str], list[str]]:
    """Hold the data of a recipe against what a run began with.

    Args:
        accept: go on with other data, which are recorded in place of the first.
        sets: as of :func:`record_data`.

    Returns:
        What changed and is accepted, a line each; and notes.

    Raises:
        DataError: something changed, and that is not accepted.
        ArtifactError: the record is damaged.
    """
    sets = sets_of(recipe) if sets is None else sets
    if not (folder / RunFiles.DATA).is_file():
        record_data(folder, recipe, sets)
        return [], [
            "the run began before its data were recorded: whether they changed since cannot be "
            "told; from here on it can"
        ]
    before = read_identities(folder)
    now = dict(_identities(recipe, sets, before))
    changes, notes = [], []
    for key, identity in now.items():
        if key not in before:
            continue
        if before[key].shape is None or identity.shape is None:
            notes.append(f"{key}: a stream, of which nothing tells whether it changed")
        what = "samples" if key in sets else "files"
        if (change := difference(before[key], identity, what)) is not None:
            changes.append(f"{key}: {change}")
    if changes and not accept:
        raise DataError(
            f"{folder}: the data changed since it began:",
            *(f"  {change}" for change in changes),
            "  a resumed run would not end as an uninterrupted one; allowed: the data as they "
            "were, or --accept-changes",
        )
    if changes or now.keys() - before.keys():
        _write(folder, now)
    return changes, notes


def hold_run(folder: Path, recipe: Recipe, record: RunRecord, *, accept: bool) -> list[str]:
    """Hold the data and the recipe of a run that goes on against what it began with, and note in
    its record what is accepted; where the data lie elsewhere now, its recipe says so from here on.

    The recipe that it began with stays in the folder where another one is accepted.

    Args:
        recipe: with the run's precision.

    Returns:
        Notes.

    Raises:
        DataError, ArtifactError: as :func:`hold_against`.
    """
    changes, notes = hold_against(folder, recipe, accept=accept)
    other: list[str] = []
    if (digest := recipe_digest(recipe)) != record.recipe_digest:
        other = _replace_recipe(folder, recipe, record)
        record.recipe_digest = digest
        if not other:
            notes.append("the data lie elsewhere than when the run began, and hold what they held")
    if changes or other:
        record.accepted.append(accepted_now([*other, *changes], record.step))
        notes += [f"accepted: {change}" for change in (*other, *changes)]
    write_run(folder, record)
    return notes


def _replace_recipe(folder: Path, recipe: Recipe, record: RunRecord) -> list[str]:
    """Put a recipe in place of a run's own; the keys that changed, places of data apart."""
    path, began = folder / RunFiles.RECIPE, folder / RunFiles.BEGAN
    changes = recipe_changes(recipe, load_foreign(path), places=False)
    if changes:
        record.features = None  # which towers are locked may have changed
        if not began.is_file():
            write_atomic(began, path.read_bytes())
    write_atomic(path, dump_recipe(recipe))
    return changes


def accepted_now(changes: list[str], step: int) -> dict[str, Any]:
    """An entry of a record's ``accepted``: when, after which step, and what changed."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"at": at, "step": step, "changes": changes}


def sets_of(recipe: Recipe) -> dict[str, Callable[[], SampleSet]]:
    """Every set that decides a recipe's weights or figures, by its key; none is opened yet."""
    found: dict[tuple[str, str], str] = {}
    sets: dict[str, Callable[[], SampleSet]] = {}
    for use in splits_of(recipe):
        same = (use.section.model_dump_json(by_alias=True), use.split)
        if found.setdefault(same, use.key) == use.key:
            key = f"{use.key}.{use.split}"
            sets[key] = _opener(use.section, use.split, recipe.seed, use.key)
    return sets


def _opener(section: DataSection, split: Split, seed: int, key: str) -> Callable[[], SampleSet]:
    return lambda: open_split(section, split, seed=seed, key=key)


def _identities(
    recipe: Recipe, sets: Sets, before: Mapping[str, Identity]
) -> Iterator[tuple[str, Identity]]:
    for key, opened in sets.items():
        yield key, identify(opened(), before.get(key))
    for key, source in _models(recipe):
        path = Path(source).expanduser()
        if path.is_file():
            yield key, identify_files(path.parent, [path.name])
            continue
        folder = model_folder(fetch_source(source))
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix in _MODEL_FILES and path.is_file()
        )
        yield key, identify_files(folder, names)


def _models(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Key and source of the models that a recipe starts or learns from."""
    if recipe.init is not None:
        yield "init.from", recipe.init.from_
    if recipe.distill is not None:
        yield "distill.from", recipe.distill.from_
    if recipe.self_train is not None:
        yield "self_train.from", recipe.self_train.from_
    name = recipe.model.pretrained if isinstance(recipe.model, ArchModel) else None
    if name is not None and Path(name).expanduser().exists():  # else a tag, which is a version
        yield "model.pretrained", name


def _write(folder: Path, identities: Mapping[str, Identity]) -> None:
    tensors: dict[str, np.ndarray] = {}
    about: dict[str, dict[str, Any]] = {}
    for key, identity in identities.items():
        names = zlib.compress(json.dumps(identity.names).encode())
        tensors[f"{key}/contents"] = identity.contents.astype(np.uint64)
        tensors[f"{key}/names"] = np.frombuffer(names, np.uint8)
        about[key] = {
            "count": identity.count,
            "shape": identity.shape,
            "whole": identity.whole,
            "read": identity.read,
        }
    write_atomic(folder / RunFiles.DATA, save(tensors, {"sets": json.dumps(about)}))


def read_identities(folder: Path) -> dict[str, Identity]:
    """What a run's data held, by key.

    Raises:
        ArtifactError: the record is damaged.
    """
    path = folder / RunFiles.DATA
    found = {}
    try:
        with safe_open(path, "numpy") as file:
            for key, about in json.loads(file.metadata()["sets"]).items():
                names = zlib.decompress(file.get_tensor(f"{key}/names").tobytes())
                contents = file.get_tensor(f"{key}/contents")
                found[key] = Identity(names=json.loads(names), contents=contents, **about)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise ArtifactError(f"{path}: not the record of a run's data: {error}") from None
    return found
