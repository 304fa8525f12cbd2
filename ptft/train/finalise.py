"""The model that a run leaves: calibrated where the recipe wants it, merged, saved and checked."""

import shutil
from pathlib import Path

from ptft.artifact import RunFiles, hash_files
from ptft.data import open_val
from ptft.evaluate import calibrate_head
from ptft.evaluate.calibrate import Calibration
from ptft.model import DualEncoder, save_model
from ptft.model.store import WEIGHTS
from ptft.recipe import ClassifyObjective, Recipe
from ptft.runs.folder import RunRecord
from ptft.train.adapter import check_saved, save_and_merge

__all__ = ["calibrate", "save_final"]


def calibrate(model: DualEncoder, recipe: Recipe) -> Calibration | None:
    """Of a classifier whose recipe asks for it: the model that is left has it, checkpoints do not.

    Returns:
        What that did, to be told; None where nothing was to be done.
    """
    if not (isinstance(recipe.objective, ClassifyObjective) and recipe.objective.calibrate):
        return None
    val = open_val(recipe.data, None, seed=recipe.seed, classes=model.spec.classes)
    return calibrate_head(model, val, workers=recipe.run.workers)


def save_final(folder: Path, model: DualEncoder, recipe: Recipe, record: RunRecord) -> None:
    """Put the model into a run folder in one piece, and the digest of its weights on record.

    Raises:
        AdaptError: what was saved is another model than what was trained.
    """
    model, trained = save_and_merge(recipe, model, folder)
    final = folder / RunFiles.FINAL
    partial = folder / f".{RunFiles.FINAL}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_model(model, partial)
    check_saved(trained, partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    record.files = hash_files(final)
    record.weights_digest = record.files[WEIGHTS]["sha256"]
