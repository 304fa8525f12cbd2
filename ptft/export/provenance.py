"""Where a model comes from: the run or folder behind it, and what they record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.artifact import (
    FolderFiles,
    RunFiles,
    file_sha256,
    read_json,
    read_model_info,
    verify_files,
)
from ptft.errors import DigestError
from ptft.files.bounds import Bounds
from ptft.model.licence import card_licence, common_licence, run_licence
from ptft.model.source import open_clip_weights
from ptft.model_record import MixRecord, read_mix, recorded_figures
from ptft.model_source import (
    Checkpoint,
    LocalSource,
    Mix,
    ModelFolder,
    OpenClipFolder,
    Run,
    fetch_source,
    model_folder,
)
from ptft.recipe import Recipe, load_foreign, recipe_digest
from ptft.runs.folder import read_run

__all__ = ["Provenance", "read_provenance"]


@dataclass(frozen=True)
class Provenance:
    """What is known of a model beside its weights.

    Attributes:
        source: what the model was read from.
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

    source: LocalSource
    folder: Path
    name: str
    recipe: Recipe | None
    recipe_digest: str
    weights_digest: str
    evaluation: dict[str, Any]
    licence: str
    mix: MixRecord | None = None

    @property
    def widths(self) -> list[int]:
        """To how many dimensions embeddings may be cut, of a model that was trained for it; of a
        mix one of the parents may not have been."""
        if self.recipe is None or self.mix is not None:
            return []
        return list(getattr(self.recipe.objective, "matryoshka", None) or [])


def read_provenance(source: str | Path) -> Provenance:
    """Read what the run or model folder of a source records.

    Raises:
        ModelError, HubError: there is no model.
        DigestError: its files are not the ones that were recorded.
    """
    found = fetch_source(source)
    folder = model_folder(found)
    match found:
        case ModelFolder():
            return _of_model_folder(found)
        case Mix():
            return _of_mix(found)
        case Run(path=run) | Checkpoint(run=Path() as run):
            return _of_run(found, run, folder)
        case Checkpoint():
            weights = folder / RunFiles.WEIGHTS
        case OpenClipFolder():
            weights = open_clip_weights(folder)
    return Provenance(
        source=found,
        folder=folder,
        name=found.label.split("@")[0].rpartition("/")[2],
        recipe=None,
        recipe_digest="",
        weights_digest=file_sha256(weights),
        evaluation={},
        licence=card_licence(folder / FolderFiles.CARD),
    )


def _of_run(source: LocalSource, run: Path, folder: Path) -> Provenance:
    record, recipe = read_run(run), load_foreign(run / RunFiles.RECIPE)
    weights = file_sha256(folder / RunFiles.WEIGHTS)
    evaluation: dict[str, Any] = {}
    if folder == run / RunFiles.FINAL:
        if record.weights_digest is not None:
            _check_weights(folder, weights, record.weights_digest, RunFiles.RUN)
        if (run / RunFiles.METRICS).is_file():  # it belongs to the final weights alone
            metrics = run / RunFiles.METRICS
            evaluation = recorded_figures(read_json(metrics), str(metrics))
    return Provenance(
        source=source,
        folder=folder,
        name=record.name,
        recipe=recipe,
        recipe_digest=recipe_digest(recipe),
        weights_digest=weights,
        evaluation=evaluation,
        licence=run_licence(run),
    )


def _of_mix(source: Mix) -> Provenance:
    mix, weights = read_mix(source.folder), file_sha256(source.folder / RunFiles.WEIGHTS)
    _check_weights(source.folder, weights, mix.weights_digest, RunFiles.MIX)
    return Provenance(
        source=source,
        folder=source.folder,
        name=mix.name,
        recipe=None,
        recipe_digest="",
        weights_digest=weights,
        evaluation=mix.evaluation,
        licence=common_licence(parent.licence for parent in mix.parents),
        mix=mix,
    )


def _check_weights(folder: Path, found: str, recorded: str, record: str) -> None:
    if found != recorded:
        path = folder / RunFiles.WEIGHTS
        raise DigestError(f"{path}: sha256 {found}; {record} records {recorded}")


def _of_model_folder(source: ModelFolder) -> Provenance:
    folder = source.folder
    info = read_model_info(folder)
    present = {name: entry for name, entry in info.files.items() if (folder / name).exists()}
    verify_files(folder, present)  # a snapshot may lack files that a model is not loaded from
    recipe = folder / FolderFiles.RECIPE
    metrics = folder / FolderFiles.METRICS
    said = Bounds(read_json(metrics), str(metrics)).values if metrics.is_file() else {}
    return Provenance(
        source=source,
        folder=folder,
        name=info.name,
        recipe=load_foreign(recipe) if recipe.is_file() else None,
        recipe_digest=info.recipe_digest,
        weights_digest=info.weights_digest,
        evaluation=recorded_figures(said.get("evaluation", {}), f"{metrics}: evaluation"),
        licence=card_licence(folder / FolderFiles.CARD),
        mix=read_mix(folder) if (folder / FolderFiles.MIX).is_file() else None,
    )
