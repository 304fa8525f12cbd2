"""Arms that build on the best labelled one: which that is, and what is trained before them: a
teacher, a start that has adapted to pictures without labels, or the other members of a soup."""

import hashlib
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptft.artifact import read_json, write_json
from ptft.compare.arms import arm_recipe
from ptft.compare.count import count_training
from ptft.compare.results import Cell
from ptft.compare.target import Target, pictures_of
from ptft.compare.unlabelled_arms import Base, adapting_recipe
from ptft.errors import DataError, TrainingError
from ptft.recipe import Comparison, Recipe, dump_recipe
from ptft.recipe.comparison import BUILT, can_be_base
from ptft.speech import SILENT
from ptft.train import train
from ptft.train.self_training import unlabelled_pictures

if TYPE_CHECKING:
    from ptft.compare.task import Task

__all__ = ["Prepared", "best_base", "check_unlabelled", "measured_recipes", "task_recipe"]

_COST = "cost.json"


@dataclass(frozen=True)
class Prepared:
    """What stands before the training of an arm that builds on another.

    Attributes:
        base: with its model.
        pictures: in ``data.unlabelled``; of a soup 0, which reads none.
        cpu, wall: seconds that making it took.
        flops: of its training.
        others: of a soup the runs of its other members.
    """

    base: Base
    pictures: int
    cpu: float
    wall: float
    flops: float
    others: tuple[Path, ...] = ()


def task_recipe(task: "Task", seed: int, chosen: Mapping[str, Any]) -> Recipe:
    """Build the recipe of a task's arm for a seed; what has to be trained before it is trained."""
    base = None
    if task.arm.kind in BUILT:
        if seed not in task.prepared:
            task.prepared[seed] = _prepare(task, seed)
        base = task.prepared[seed].base
    return _recipe(task, seed, chosen, base)


def measured_recipes(task: "Task") -> list[Recipe]:
    """Build what an arm's memory and operations are measured on before anything is trained: its
    recipe for the first seed, from the start itself and without a teacher's labels, which cost no
    less; and after it the one by which a start adapts, where the arm has one."""
    if task.arm.kind not in BUILT:
        return [_recipe(task, 0, {}, None)]
    base = best_base(task.comparison, task.cells.all(), task.budget)
    recipes = [_recipe(task, 0, {}, base)]
    if task.arm.kind == "adapt_unlabelled":
        found = unlabelled_pictures(task.comparison)
        assert found is not None, "the recipe says so"
        folder = str(task.folder / "run")
        recipes.append(adapting_recipe(task.comparison, pictures=len(found), folder=folder))
    return recipes


def _recipe(task: "Task", seed: int, chosen: Mapping[str, Any], base: Base | None) -> Recipe:
    return arm_recipe(
        task.comparison,
        task.arm,
        budget=task.budget,
        samples=task.target.samples(task.budget),
        seed=seed,
        chosen=chosen,
        folder=str(task.folder / "run"),
        base=base,
    )


def best_base(comparison: Comparison, cells: Iterable[Cell], budget: int) -> Base:
    """Choose the labelled arm that validates best at a budget over all seeds, of those that retain
    what is asked; where none does, the nearest.

    Args:
        cells: all that are finished; those of the labelled arms at the budget are.
    """
    section = comparison.compare
    arms = {arm.label: arm for arm in section.arms if can_be_base(arm.kind)}
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.budget == budget and cell.arm in arms:
            found.setdefault(cell.arm, []).append(cell)

    def rank(label: str) -> tuple[float, float]:
        own = found[label]
        kept = sum(cell.val_retention for cell in own) / len(own)
        short = max(0.0, section.retention - kept) if section.retain else 0.0
        return -short, sum(cell.own for cell in own) / len(own)

    best = max(found, key=rank)
    return Base(arms[best], next(cell.chosen for cell in found[best]))


def check_unlabelled(comparison: Comparison, target: Target) -> None:
    """Refuse pictures without labels that the target is measured on.

    Raises:
        DataError: ``val`` or ``test`` has one of them; naming it.
    """
    pictures = unlabelled_pictures(comparison)
    if pictures is None:
        return
    learned = pictures_of(pictures)
    for split, samples in (("val", target.target.val), ("test", target.target.test)):
        shared = learned.keys() & pictures_of(samples).keys()
        if shared:
            first = sorted(learned[digest] for digest in shared)[0]
            raise DataError(
                f"data.unlabelled.train: shares {len(shared)} pictures with the target's {split}, "
                f"such as {first}; allowed: pictures that nothing is measured on"
            )


def _prepare(task: "Task", seed: int) -> Prepared:
    """Train what the arm needs first: of each seed the teacher, or once the adapted start."""
    comparison = task.comparison
    base = best_base(comparison, task.cells.all(), task.budget)
    if task.arm.kind == "soup":
        return _soup_members(task, seed, base)
    found = unlabelled_pictures(comparison)
    assert found is not None, "the recipe says so"
    pictures = len(found)
    if task.arm.kind == "self_train":
        folder = task.folder / f"teacher{seed}"
        recipe = arm_recipe(
            comparison,
            base.arm,
            budget=task.budget,
            samples=task.target.samples(task.budget),
            seed=seed,
            chosen=base.chosen,
            folder=str(folder),
        )
        cost = _train(recipe, folder)
    else:
        folder = _adapted(task, pictures)
        cost = read_json(folder / _COST)
    return Prepared(Base(base.arm, base.chosen, str(folder)), pictures, **cost, others=())


def _soup_members(task: "Task", seed: int, base: Base) -> Prepared:
    """Train all members of a seed's soup but the first, which the task itself trains."""
    others, costs = [], list[dict[str, float]]()
    for member in range(1, task.comparison.compare.soup):
        folder = task.folder / f"member{member}"
        recipe = _recipe(task, seed, {}, replace(base, member=member))
        run = recipe.run.model_copy(update={"dir": str(folder)})
        costs.append(_train(recipe.model_copy(update={"run": run}), folder))
        others.append(folder)
    whole = {key: sum(cost[key] for cost in costs) for key in costs[0]}
    return Prepared(base, 0, **whole, others=tuple(others))


def _adapted(task: "Task", pictures: int) -> Path:
    """The start that has seen the pictures; whichever task of this comparison needs it first
    trains it, and of two at once both do, to the same weights."""
    own = task.folder / "adapting"
    recipe = adapting_recipe(task.comparison, pictures=pictures, folder=str(own))
    text = dump_recipe(recipe.model_copy(update={"run": None})).encode()
    shared = task.folder.parent / f"adapted.{hashlib.sha256(text).hexdigest()[:10]}"
    if not shared.is_dir():
        write_json(own / _COST, _train(recipe, own))
        with suppress(OSError):  # another put it there meanwhile
            own.rename(shared)
    return shared


def _train(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Run a recipe anew; the seconds and the operations that it took."""
    shutil.rmtree(folder, ignore_errors=True)
    cpu, wall = time.process_time(), time.perf_counter()
    if not train(recipe, record=False, log=SILENT).finished:
        raise TrainingError("a signal stopped it before its end")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    flops = count_training(recipe)[0] * (recipe.optim.samples_seen or 0)
    return {"cpu": cpu, "wall": wall, "flops": flops}
