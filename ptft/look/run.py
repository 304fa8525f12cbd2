"""``ptft data look``: a recipe or a path -> a page of what its data holds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ptft.data.checks.check import Checked, inspect_splits
from ptft.data.sample import SampleSet
from ptft.errors import DataError, RecipeError
from ptft.look.guess import guess_section
from ptft.look.model_view import view_of
from ptft.look.page import PageContent, SplitContent, render_page
from ptft.look.samples import read_samples
from ptft.recipe import DataSection, Recipe, StagedRecipe, find_recipe, has_pictures
from ptft.recipe.check import SplitUse, splits_of
from ptft.recipe.data import has_split
from ptft.recipe.explain import explain
from ptft.recipe.load import apply_override, load_any
from ptft.recipe.paths import expand_paths, is_url
from ptft.recipe.section import Section

__all__ = ["DataPage", "data_page"]

_RECIPES = (".yaml", ".yml")


@dataclass(frozen=True)
class DataPage:
    """A page of data, and what the command says beside it.

    Attributes:
        page: HTML, whole.
        said: what was guessed of a path; empty for a recipe.
        section: the guessed data section as YAML; "" for a recipe.
        problems, warnings: see :class:`ptft.data.checks.check.Inspection`.
    """

    page: str
    said: list[str]
    section: str
    problems: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class _Asked:
    """What a target means.

    Attributes:
        uses: the splits to look at.
        recipe: None for a path.
        unread: splits of the recipe's data that it does not read itself.
        said, section: see :class:`DataPage`.
    """

    uses: list[SplitUse]
    recipe: Recipe | None = None
    unread: frozenset[str] = frozenset()
    said: list[str] = field(default_factory=list)
    section: str = ""


class _Path(Section):
    """What overrides of a path may set."""

    data: DataSection


def data_page(
    target: str,
    overrides: Sequence[str] = (),
    *,
    every: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> DataPage:
    """Make the page of every split of a data section, whatever is wrong with it.

    Args:
        target: a recipe (a file, or a built-in one's name), a folder, files, or a glob.
        overrides: ``dotted.key=value``; of a path, ``data.label=kind`` and its like.
        every: decode every picture and read every caption.
        tell: called with what is read, before it is.

    Raises:
        RecipeError: there is no such recipe or path, or a key or value is not allowed.
        DataError: no split could be opened; all that is wrong, a line each.
    """
    asked = _of_recipe(target, overrides) if _is_recipe(target) else _of_path(target, overrides)
    recipe = asked.recipe
    view = view_of(recipe)
    seen: list[SplitContent] = []

    def visit(found: Checked, samples: SampleSet) -> None:
        pictures = has_pictures(found.uses[0].section)
        shown = read_samples(samples, view, pictures=pictures, learned=found.learned)
        seen.append(SplitContent(found, shown, _read_by(found.uses, asked)))

    inspected = inspect_splits(
        asked.uses,
        None if recipe is None else recipe.objective,
        seed=0 if recipe is None else recipe.seed,
        every=every,
        tell=tell,
        visit=visit,
    )
    if not seen:
        raise DataError(*inspected.problems)
    content = PageContent(
        title=target if recipe is None else recipe.name,
        target=target,
        every=every,
        view=view,
        said=asked.said,
        section=asked.section,
        problems=inspected.problems,
        warnings=inspected.warnings,
        splits=seen,
    )
    page = render_page(content)
    return DataPage(page, asked.said, asked.section, inspected.problems, inspected.warnings)


def _is_recipe(target: str) -> bool:
    """Whether a target is a recipe, not data. Raises RecipeError where it is neither."""
    path = Path(target).expanduser()
    if path.suffix.lower() in _RECIPES and path.is_file():
        return True
    if is_url(target) or path.exists():
        return False
    try:
        find_recipe(target)
    except RecipeError as no_recipe:
        try:
            expand_paths(target, "TARGET")
        except RecipeError as no_path:
            near = [str(one) for one in (no_path, no_recipe) if "did you mean" in str(one)]
            raise RecipeError(
                near[0] if near else f"TARGET: {target!r}: no such file, folder or recipe (ptft ls)"
            ) from None
        return False
    return True


def _parse(values: dict[str, Any], overrides: Sequence[str], where: str) -> DataSection:
    """The guessed section with overrides. Raises RecipeError, naming keys and what is allowed."""
    for override in overrides:
        apply_override(values, override)
    try:
        return _Path.model_validate(values).data
    except ValidationError as error:
        problems = explain(error.errors(include_url=False), values, _Path)
        raise RecipeError(*(f"{where}: {problem}" for problem in problems)) from None


def _as_yaml(data: DataSection) -> str:
    given: dict[str, Any] = data.model_dump(mode="json", exclude_defaults=True)
    paths: dict[str, Any] = {
        split: given.pop(split) for split in ("train", "val", "test") if split in given
    }
    values = {"kind": data.kind, **paths, **given}
    return yaml.safe_dump({"data": values}, sort_keys=False, allow_unicode=True, width=100)


def _of_section(data: DataSection) -> Iterator[SplitUse]:
    for split in ("train", "val", "test"):
        if has_split(data, split):
            yield SplitUse("data", data, split, None)


def _of_path(target: str, overrides: Sequence[str]) -> _Asked:
    guess = guess_section(target)
    data = _parse({"data": guess.values}, overrides, target)
    said = list(guess.said)
    if not has_split(data, "val") and has_split(data, "train"):
        said.append("no val: data.hold_out: 0.1 would hold a tenth of train out")
    return _Asked(list(_of_section(data)), said=said, section=_as_yaml(data))


def _of_recipe(target: str, overrides: Sequence[str]) -> _Asked:
    recipe = load_any(target, overrides)
    uses = list(splits_of(recipe))
    if isinstance(recipe, StagedRecipe):
        return _Asked(uses, recipe)
    read = {use.split for use in uses if use.section == recipe.data}
    more = [use for use in _of_section(recipe.data) if use.split not in read]
    return _Asked([*uses, *more], recipe, frozenset(use.split for use in more))


def _read_by(uses: Sequence[SplitUse], asked: _Asked) -> str:
    """Who reads a split, in words."""
    if asked.recipe is None:
        return {"train": "to learn from", "val": "to choose by"}.get(uses[0].split, "to report on")
    if uses[0].item is None and uses[0].key == "data" and uses[0].split in asked.unread:
        return "not read by this recipe"
    words = []
    for use in uses:
        if use.item is not None:
            words.append(f"{use.item.kind} {use.item.name}".strip())
        else:
            words.append("learned from" if use.split == "train" else "chosen by")
    return ", ".join(dict.fromkeys(words))
