"""What is recorded of a model: where it comes from, as its source says, and ``ptft.json`` of its
export."""

import math
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ptft import __version__
from ptft.artifact import (
    FolderFiles,
    ModelInfo,
    RunFiles,
    file_sha256,
    hash_files,
    read_json,
    read_model_info,
    verify_files,
)
from ptft.errors import DigestError, ExportError
from ptft.export.quality import Texts
from ptft.files.bounds import Bounds
from ptft.model import DualEncoder
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
from ptft.recipe import Recipe, ZeroShotEvaluation, load_foreign, recipe_digest
from ptft.runs.folder import read_run

__all__ = ["Provenance", "make_record", "read_provenance", "task_of"]


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


def task_of(model: DualEncoder) -> str:
    """``ModelInfo.task``.

    Raises:
        ExportError: the model has two heads.
    """
    if model.detector is None:
        return "embed" if model.head is None else "classify"
    if model.head is not None:
        raise ExportError(
            f"{model.spec.name}: a classifier and a detector in one; a model folder holds one of "
            "them"
        )
    return "detect"


def make_record(
    model: DualEncoder,
    origin: Provenance,
    name: str,
    folder: Path,
    clients: dict[str, dict[str, str]],
    published: str,
    texts: Texts,
) -> ModelInfo:
    """``ptft.json`` of a folder whose other files are written.

    Args:
        name: of the model.
        clients: see ``ModelInfo.clients``.
        published: digest of the folder's recipe, where it is not the run's.
        texts: whether it may be asked by them.
    """
    spec = model.spec
    classes, templates = list(spec.classes), list(spec.templates)
    nms, counting = None, None
    if model.detector is not None:
        told = model.detector.spec
        classes, templates = list(told.classes), list(told.templates)
        nms, counting = told.usual_nms, told.counting
    if not templates and origin.recipe is not None:
        zero_shot = (one for one in origin.recipe.evaluate if isinstance(one, ZeroShotEvaluation))
        templates = next((list(one.templates) for one in zero_shot), [])
    with torch.no_grad():
        scale = math.exp(model.logit_scale.item())
        bias = 0.0 if model.logit_bias is None else model.logit_bias.item()
    return ModelInfo(
        name=name,
        task=task_of(model),
        embed_dim=spec.embed_dim,
        context_length=model.context_length,
        image_size=spec.preprocess.size,
        logit_scale=scale,
        logit_bias=bias,
        recipe_digest=origin.recipe_digest,
        published_recipe=published,
        weights_digest=origin.weights_digest,
        tokenizer=spec.tokenizer.kwargs(),
        preprocess=spec.preprocess.to_config(),
        classes=classes,
        templates=templates,
        files=hash_files(folder),
        clients=clients,
        versions=_versions(),
        reads=spec.reads,
        matryoshka=origin.widths,
        texts=texts.offered,
        texts_reason=texts.reason,
        thresholds=list(spec.thresholds or ()),
        nms=nms,
        counting=None if counting is None else counting.to_dict(),
        aligned=False if spec.aligned is False else None,
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


def _versions() -> dict[str, str]:
    names = (
        "torch",
        "open_clip_torch",
        "timm",
        "transformers",
        "onnx",
        "onnxscript",
        "onnxruntime",
    )
    return {
        "ptft": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
