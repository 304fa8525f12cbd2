"""``ptft.json`` of a model that is exported."""

import math
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from ptft import __version__
from ptft.artifact import ModelInfo, hash_files
from ptft.errors import ExportError
from ptft.export.provenance import Provenance
from ptft.export.texts import Texts
from ptft.model import DualEncoder
from ptft.recipe import ZeroShotEvaluation

__all__ = ["make_record", "task_of"]


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
    if model.detector is not None:
        classes, templates = list(model.detector.spec.classes), list(model.detector.spec.templates)
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
        aligned=False if spec.aligned is False else None,
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
