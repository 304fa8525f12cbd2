"""Where an exported model comes from: the run or folder behind it, and what they record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.artifact import (
    FolderFiles,
    MixRecord,
    RunFiles,
    file_sha256,
    read_json,
    read_mix,
    read_model_info,
    verify_files,
)
from ptft.errors import DigestError
from ptft.model.licence import card_licence, common_licence, run_licence
from ptft.model.source import find_folder, open_clip_weights
from ptft.model.store import WEIGHTS
from ptft.recipe import Recipe, load_foreign, recipe_digest
from ptft.runs.folder import read_run

__all__ = ["Source", "find_source"]


@dataclass(frozen=True)
class Source:
    """What is known of a model beside its weights.

    Attributes:
        folder: holds the model's files.
        name: of the model, unless told otherwise.
        recipe: None where none is recorded.
        recipe_digest: empty where none is recorded.
        weights_digest: sha256 (hex) of the weights, as the run recorded it.
        evaluation: figures by the names of the recipe's evaluations; empty where none ran.
        licence: of what the weights started from, or of the folder that they come from; "" where
            there is none, ``unknown`` where nothing says it.
        mix: what it was mixed of; None where it was trained.
    """

    folder: Path
    name: str
    recipe: Recipe | None
    recipe_digest: str
    weights_digest: str
    evaluation: dict[str, Any]
    licence: str
    mix: MixRecord | None = None


def find_source(source: str | Path) -> Source:
    """Read what the run or model folder of a source records.

    Raises:
        ModelError, HubError: there is no model.
        DigestError: its files are not the ones that were recorded.
    """
    folder, label = find_folder(source)
    if (folder / FolderFiles.INFO).is_file():
        return _from_model_folder(folder)
    if (folder / RunFiles.MIX).is_file():
        return _from_mix(folder)
    for place in (folder, folder.parent, folder.parent.parent):  # run/final, run/checkpoints/step-
        if (place / RunFiles.RUN).is_file():
            return _from_run(place, folder)
    weights = folder / WEIGHTS if (folder / WEIGHTS).is_file() else open_clip_weights(folder)
    name = label.split("@")[0].rpartition("/")[2]
    return Source(
        folder, name, None, "", file_sha256(weights), {}, card_licence(folder / FolderFiles.CARD)
    )


def _from_run(run: Path, folder: Path) -> Source:
    record, recipe = read_run(run), load_foreign(run / RunFiles.RECIPE)
    weights = file_sha256(folder / WEIGHTS)
    evaluation: dict[str, Any] = {}
    if folder == run / RunFiles.FINAL:
        if record.weights_digest is not None:
            _check_weights(folder, weights, record.weights_digest, RunFiles.RUN)
        if (run / RunFiles.METRICS).is_file():  # it belongs to the final weights alone
            evaluation = read_json(run / RunFiles.METRICS)
    digest = recipe_digest(recipe)
    return Source(folder, record.name, recipe, digest, weights, evaluation, run_licence(run))


def _from_mix(folder: Path) -> Source:
    mix = read_mix(folder)
    _check_weights(folder, file_sha256(folder / WEIGHTS), mix.weights_digest, RunFiles.MIX)
    licence = common_licence(parent.licence for parent in mix.parents)
    return Source(folder, mix.name, None, "", mix.weights_digest, mix.evaluation, licence, mix)


def _check_weights(folder: Path, found: str, recorded: str, record: str) -> None:
    if found != recorded:
        raise DigestError(f"{folder / WEIGHTS}: sha256 {found}; {record} records {recorded}")


def _from_model_folder(folder: Path) -> Source:
    info = read_model_info(folder)
    present = {name: entry for name, entry in info.files.items() if (folder / name).exists()}
    verify_files(folder, present)  # a snapshot may lack files that a model is not loaded from
    recipe = folder / FolderFiles.RECIPE
    metrics = folder / FolderFiles.METRICS
    return Source(
        folder=folder,
        name=info.name,
        recipe=load_foreign(recipe) if recipe.is_file() else None,
        recipe_digest=info.recipe_digest,
        weights_digest=info.weights_digest,
        evaluation=read_json(metrics)["evaluation"] if metrics.is_file() else {},
        licence=card_licence(folder / FolderFiles.CARD),
        mix=read_mix(folder) if (folder / FolderFiles.MIX).is_file() else None,
    )
