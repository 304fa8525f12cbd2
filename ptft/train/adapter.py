"""What holds a run to what its recipe says of adapting: before the first step, and at the end."""

import copy
import shutil
from pathlib import Path

import torch

from ptft.artifact import RunFiles
from ptft.model import (
    DualEncoder,
    check_merged,
    check_trains,
    load_model,
    merge,
    save_adapter,
    scale_learns,
)
from ptft.model.adapt import Reference, reference_outputs
from ptft.objective import compute_objective
from ptft.recipe import AdapterSection, ClassifyObjective, Recipe
from ptft.train.setup import Setup, batches, to_device

__all__ = ["check_learning", "check_saved", "save_and_merge"]

_SAMPLES = 16  # of the check: enough for different captions, cheap beside a step


def check_learning(recipe: Recipe, setup: Setup) -> None:
    """Run the integrity gate on the first samples of a run; nothing is changed by it.

    Raises:
        AdaptError: something that is said to learn does not, or the other way round.
    """
    rng = torch.get_rng_state()  # which the loader draws from
    size = max(2, min(recipe.optim.global_batch, _SAMPLES))
    batch = next(iter(batches(recipe, setup, start=0, end=size, size=size, workers=0)))
    inputs = to_device(batch, setup.model, recipe)
    torch.set_rng_state(rng)

    objective = recipe.objective
    if not isinstance(objective, ClassifyObjective):  # one caption for all would move nothing
        objective = objective.model_copy(update={"multi_positive": False})

    def loss() -> torch.Tensor:
        return compute_objective(objective, setup.model, inputs).loss

    check_trains(setup.model, loss, scale_learns=scale_learns(recipe.adapt, recipe.objective))


def save_and_merge(
    recipe: Recipe, model: DualEncoder, run: Path
) -> tuple[DualEncoder, Reference | None]:
    """Write ``adapter/`` of a trained model, where an adapter was trained.

    Returns:
        The model to keep: a merged copy, since the ranks of a sharded run go on sharing the model
        itself; and what the model gave as it was trained, for :func:`check_saved`. Without an
        adapter the model itself, and None.

    Raises:
        AdaptError: the merged model gives other embeddings.
    """
    if not isinstance(recipe.adapt, AdapterSection):
        return model, None
    partial = run / f".{RunFiles.ADAPTER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_adapter(model, partial)
    shutil.rmtree(run / RunFiles.ADAPTER, ignore_errors=True)
    partial.rename(run / RunFiles.ADAPTER)
    reference = reference_outputs(model)
    # the specification holds the tokenizer, which nobody changes
    return merge(copy.deepcopy(model, {id(model.spec): model.spec})), reference


def check_saved(reference: Reference | None, folder: Path) -> None:
    """Read a saved model back and hold it against what the trained one gave.

    Raises:
        AdaptError: it gives other embeddings.
    """
    if reference is not None:
        check_merged(reference, load_model(folder), what=f"{folder}: the model read back")
