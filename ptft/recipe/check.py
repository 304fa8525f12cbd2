"""What can be known of a recipe before anything heavy is imported or built, such as every split of
every data section that it will ever read.

Architectures are looked up in the installed libraries' own files without importing them (open_clip
alone takes seconds), so that a misspelt name is told in well under one.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from ptft.errors import RecipeError, suggest
from ptft.recipe.adapt import TipAdapterAdapt
from ptft.recipe.comparison import Comparison
from ptft.recipe.data import (
    DataSection,
    MixtureData,
    ScenesData,
    ShardsData,
    TableData,
    has_many_labels,
    has_split,
    without_captions,
)
from ptft.recipe.evaluation import EvaluateItem
from ptft.recipe.labels import learned_data
from ptft.recipe.model import ArchModel, TextTower, TowersModel
from ptft.recipe.objective import ClassifyObjective, DetectObjective
from ptft.recipe.optim import ADAMW, LBFGS, OptimSection, find_optimizer
from ptft.recipe.paths import check_url, expand_paths, is_hub_id, is_url
from ptft.recipe.schema import Recipe
from ptft.recipe.sequence import StagedRecipe
from ptft.recipe.stage import stage_recipe

__all__ = [
    "Split",
    "SplitUse",
    "check_evaluations",
    "check_optimizer",
    "check_recipe",
    "evaluated_splits",
    "open_clip_architectures",
    "splits_of",
    "timm_architectures",
]

Split = Literal["train", "val", "test"]
"""Of a data section."""


class SplitUse(NamedTuple):
    """One reading of a split.

    Attributes:
        key: of the data section in the recipe.
        section: the data section.
        split: of it.
        item: the evaluation that reads it; None: it is learned from, or chosen by.
    """

    key: str
    section: DataSection
    split: Split
    item: EvaluateItem | None


def splits_of(recipe: Recipe) -> Iterator[SplitUse]:
    """The splits that a recipe reads, in the order of its sections; some may come twice."""
    if isinstance(recipe, StagedRecipe):
        for stage in recipe.stages:
            key = f"stages.{stage.name}"
            yield SplitUse(f"{key}.data", stage.data, "train", None)
            yield from _of_item(stage.evaluate, stage.data, f"{key}.data", f"{key}.evaluate.data")
        for number, known in enumerate(recipe.guard.known if recipe.guard else []):
            yield SplitUse(f"guard.known.{number}", known, "train", None)
    else:
        yield SplitUse("data", learned_data(recipe), "train", None)
    if (unlabelled := getattr(recipe.data, "unlabelled", None)) is not None:
        yield SplitUse("data.unlabelled", without_captions(unlabelled), "train", None)
    if _chooses_by_val(recipe):
        yield SplitUse("data", recipe.data, "val", None)
    yield from evaluated_splits(recipe)
    if isinstance(recipe, Comparison):
        yield from _compared(recipe)


def evaluated_splits(recipe: Recipe) -> Iterator[SplitUse]:
    """Those that its evaluations and its early stopping read."""
    for number, item in enumerate(recipe.evaluate):
        yield from _of_item(item, recipe.data, "data", f"evaluate.{number}.data")
    stop = recipe.stops_early
    yield from _retained(stop.retain if stop else [], "early_stop.retain", ("val",))


def _chooses_by_val(recipe: Recipe) -> bool:
    objective, adapt = recipe.objective, recipe.adapt
    if isinstance(objective, DetectObjective) and objective.count:
        return True
    calibrates = isinstance(objective, ClassifyObjective) and (
        objective.calibrate or (has_many_labels(recipe.data) and has_split(recipe.data, "val"))
    )
    return calibrates or (isinstance(adapt, TipAdapterAdapt) and adapt.chooses)


def _compared(comparison: Comparison) -> Iterator[SplitUse]:
    target = comparison.evaluate[0]
    key = "evaluate.0.data" if target.data else "data"
    for split in ("val", "test"):
        yield SplitUse(key, target.data or comparison.data, split, target)
    yield from _retained(comparison.compare.retain, "compare.retain", ("val", "test"))


def _retained(
    items: Iterable[EvaluateItem], key: str, splits: tuple[Split, ...]
) -> Iterator[SplitUse]:
    for number, item in enumerate(items):
        if item.data is None:
            continue  # a comparison says so when it begins
        probes: tuple[Split, ...] = ("train",) if item.kind == "probe" else ()
        for split in (*probes, *splits):
            yield SplitUse(f"{key}.{number}.data", item.data, split, item)


def _of_item(
    item: EvaluateItem, data: DataSection, data_key: str, own_key: str
) -> Iterator[SplitUse]:
    section, key = (item.data, own_key) if item.data else (data, data_key)
    if item.kind == "probe":
        yield SplitUse(key, section, "train", item)
    yield SplitUse(key, section, item.split, item)


def check_recipe(recipe: Recipe) -> None:
    """Check that the architectures and the local files that a recipe names exist.

    Raises:
        RecipeError: naming the key, the value and the near misses.
    """
    if isinstance(recipe.model, ArchModel):
        _check_arch(recipe.model)
    elif isinstance(recipe.model, TowersModel):
        _check_towers(recipe.model)
    if recipe.init is not None:
        _check_source("init.from", recipe.init.from_)
    if recipe.distill is not None:
        _check_source("distill.from", recipe.distill.from_)
    if recipe.self_train is not None:
        _check_source("self_train.from", recipe.self_train.from_)
    check_optimizer(recipe.optim)
    _check_splits(splits_of(recipe))
    _check_pairs(recipe)
    if isinstance(recipe, StagedRecipe):
        _check_stages(recipe)


def _check_stages(sequence: StagedRecipe) -> None:
    for number in range(len(sequence.stages)):
        check_optimizer(stage_recipe(sequence, number, start="a stage", folder="").optim)


def _check_pairs(recipe: Recipe) -> None:
    alone = isinstance(recipe.objective, ClassifyObjective | DetectObjective)
    if not alone and recipe.optim.global_batch < 2:
        raise RecipeError(
            f"optim.global_batch: {recipe.optim.global_batch}: a pair alone has no negatives, and "
            f"objective.kind {recipe.objective.kind!r} learns from these; allowed: 2 or more"
        )


def check_optimizer(section: OptimSection) -> None:
    """Check that timm has the optimiser, and that it takes what the recipe gives it.

    Raises:
        RecipeError: naming the key.
    """
    found = find_optimizer(section.optimizer)
    for key, takes in (("betas", found.betas), ("eps", found.eps)):
        if getattr(section, key) is not None and not takes:
            raise RecipeError(f"optim.{key}: not an argument of {found.name}; allowed: null")
    given = next(iter(section.optimizer_args), None)
    if section.optimizer == ADAMW and given is not None:
        raise RecipeError(f"optim.optimizer_args.{given}: adamw has its keys; see optim.betas, eps")
    if section.optimizer == LBFGS and given is not None:
        raise RecipeError(f"optim.optimizer_args.{given}: {LBFGS} has none to set")
    for given in section.optimizer_args:
        if given in OptimSection.model_fields and (given != "betas" or found.betas):
            raise RecipeError(f"optim.optimizer_args.{given}: write it as optim.{given}")


def check_evaluations(recipe: Recipe) -> None:
    """Check that the splits that the recipe's evaluations read are given and exist.

    Raises:
        RecipeError: naming the key.
    """
    _check_splits(evaluated_splits(recipe))


def _check_splits(uses: Iterable[SplitUse]) -> None:
    for use in uses:
        check_data(use.section, use.key, (use.split,))


def check_data(section: DataSection, key: str, needed: tuple[str, ...]) -> None:
    """Check that the splits ``needed`` are given, and that every local path exists.

    Raises:
        RecipeError: a split is absent, or a path of it matches nothing.
    """
    if isinstance(section, ScenesData):
        return
    if isinstance(section, MixtureData):
        for number, part in enumerate(section.parts):
            own = tuple(split for split in needed if split == "train")
            check_data(part.data, f"{key}.parts.{number}.data", own)
        for split in needed:
            if not has_split(section, split):
                raise RecipeError(f"{key}: no part has {split}; this recipe reads that split")
        return
    for split in ("train", "val", "test"):
        paths = getattr(section, split)
        if paths is None:
            if split in needed and not has_split(section, split):
                raise RecipeError(f"{key}.{split}: missing; this recipe reads that split")
            continue
        if isinstance(section, TableData) and isinstance(paths, str) and is_hub_id(paths):
            continue
        given = [paths] if isinstance(paths, str) else list(paths)
        urls = [path for path in given if isinstance(section, ShardsData) and is_url(path)]
        for url in urls:  # whether they are there is seen when they are opened
            check_url(url, f"{key}.{split}")
        local = [path for path in given if path not in urls]
        if local or not urls:
            expand_paths(local, f"{key}.{split}")
    if isinstance(section.classes, str) and not Path(section.classes).is_file():
        raise RecipeError(f"{key}.classes: {section.classes!r}: no such file")


@cache
def open_clip_architectures() -> tuple[str, ...]:
    """Names of open_clip's architectures, read from its folder of configurations."""
    return tuple(
        sorted(path.stem for path in _package("open_clip", "model_configs").glob("*.json"))
    )


@cache
def timm_architectures() -> tuple[str, ...]:
    """Names of timm's architectures, read from its sources."""
    pattern = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
    names: set[str] = set()
    for path in _package("timm", "models").glob("*.py"):
        names.update(pattern.findall(path.read_text(encoding="utf-8")))
    return tuple(sorted(names))


def _package(name: str, folder: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        wanted = "open_clip_torch" if name == "open_clip" else name
        raise RecipeError(f"{name} is not installed; run: pip install {wanted}")
    return Path(spec.origin).parent / folder


def _check_arch(model: ArchModel) -> None:
    known = open_clip_architectures()
    if model.name not in known:
        raise RecipeError(
            f"model.name: {model.name!r}: not an architecture of open_clip; "
            f"{suggest(model.name, known)}"
        )
    if model.pretrained is not None and ("/" in model.pretrained or "." in model.pretrained):
        _check_source("model.pretrained", model.pretrained)


def _check_towers(model: TowersModel) -> None:
    known = timm_architectures()
    if model.image.partition(".")[0] not in known:
        raise RecipeError(
            f"model.image: {model.image!r}: not an architecture of timm; "
            f"{suggest(model.image, known)}"
        )
    if model.image_weights is not None and "/" in model.image_weights:
        _check_source("model.image_weights", model.image_weights)
    if not isinstance(model.text, TextTower):
        folder = Path(model.text)
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise RecipeError(f"model.text: {model.text!r}: the folder has no config.json")
        if not folder.is_dir() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", model.text):
            raise RecipeError(
                f"model.text: {model.text!r}: no such folder; allowed: a folder, a Hub id, "
                "or the widths of a text transformer"
            )


def _check_source(key: str, source: str) -> None:
    """A local path that exists, or the form of a Hub id.

    ``runs/mine`` has that form too: where there is a folder ``runs``, a run in it is meant.
    """
    path = Path(source).expanduser()
    if path.exists() or (is_hub_id(source) and not path.parent.is_dir()):
        return
    raise RecipeError(
        f"{key}: {source!r}: no such file or folder; "
        "allowed: a path, or org/repo@revision on the Hub"
    )
