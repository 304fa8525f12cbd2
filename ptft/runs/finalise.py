"""The model that a run leaves: calibrated where the recipe wants it, merged, saved and checked."""

import copy
import shutil
from pathlib import Path

from ptft.artifact import RunFiles, hash_files
from ptft.data import open_val
from ptft.evaluate import calibrate_head, choose_counting, choose_thresholds
from ptft.evaluate.calibrate import Calibration
from ptft.model import (
    DualEncoder,
    check_merged,
    load_model,
    merge,
    save_adapter,
    save_model,
)
from ptft.model.adapt import Reference, reference_outputs
from ptft.model.store import WEIGHTS
from ptft.recipe import AdapterSection, AdaptSection, ClassifyObjective, DetectObjective, Recipe
from ptft.recipe.data import has_split
from ptft.runs.folder import RunRecord

__all__ = ["calibrate", "count", "save_final", "threshold"]


def calibrate(model: DualEncoder, recipe: Recipe) -> Calibration | None:
    """Of a classifier whose recipe asks for it: the model that is left has it, checkpoints do not.

    Returns:
        What that did, for people; None where nothing was to be done.
    """
    if not (isinstance(recipe.objective, ClassifyObjective) and recipe.objective.calibrate):
        return None
    val = open_val(recipe.data, None, seed=recipe.seed, classes=model.spec.classes)
    return calibrate_head(model, val, workers=recipe.run.workers)


def threshold(model: DualEncoder, recipe: Recipe) -> str | None:
    """Choose from which probability a head tells each class, where it tells each by itself.

    Returns:
        What that did, for people; None where there is no such head.
    """
    if model.spec.thresholds is None or not isinstance(recipe.objective, ClassifyObjective):
        return None
    if not has_split(recipe.data, "val"):
        return "each class is told from a half on: data has no val to choose thresholds by"
    val = open_val(recipe.data, None, seed=recipe.seed, classes=model.spec.classes)
    return str(choose_thresholds(model, val, workers=recipe.run.workers))


def count(model: DualEncoder, recipe: Recipe) -> str | None:
    """Choose by what a detector counts, where its recipe asks for that.

    Returns:
        What that did, for people; None where nothing was to be done.
    """
    if not (isinstance(recipe.objective, DetectObjective) and recipe.objective.count):
        return None
    val = open_val(recipe.data, None, seed=recipe.seed)
    return str(choose_counting(model, val, workers=recipe.run.workers))


def save_final(folder: Path, model: DualEncoder, recipe: Recipe, record: RunRecord) -> None:
    """Put the model into a run folder in one piece, and the digest of its weights on record.

    Raises:
        AdaptError: what was saved is another model than what was trained.
    """
    model, trained = _save_adapter(recipe.adapt, model, folder)
    final = folder / RunFiles.FINAL
    partial = folder / f".{RunFiles.FINAL}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_model(model, partial)
    if trained is not None:
        check_merged(trained, load_model(partial), what=f"{partial}: the model read back")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    record.files = hash_files(final)
    record.weights_digest = record.files[WEIGHTS]["sha256"]


def _save_adapter(
    section: AdaptSection, model: DualEncoder, run: Path
) -> tuple[DualEncoder, Reference | None]:
    """Write ``adapter/`` of a trained model, where an adapter was trained.

    Returns:
        The model to keep: a merged copy, since the ranks of a sharded run go on sharing the model
        itself; and what the model gave as it was trained, to hold the saved one against. Without an
        adapter the model itself, and None.

    Raises:
        AdaptError: the merged model gives other embeddings.
    """
    if not isinstance(section, AdapterSection):
        return model, None
    partial = run / f".{RunFiles.ADAPTER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_adapter(model, partial)
    shutil.rmtree(run / RunFiles.ADAPTER, ignore_errors=True)
    partial.rename(run / RunFiles.ADAPTER)
    reference = reference_outputs(model)
    # the specification holds the tokenizer, which nobody changes
    return merge(copy.deepcopy(model, {id(model.spec): model.spec})), reference
