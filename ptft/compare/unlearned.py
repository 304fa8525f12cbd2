"""Retained sets whose train side the start did not learn from: it is asked as ``val`` is."""

from collections.abc import Iterator
from pathlib import Path

from ptft.artifact import RunFiles
from ptft.compare.selected import run_of_start, selected_on
from ptft.compare.target import Target, pictures_of
from ptft.data import SampleSet, open_split
from ptft.errors import DataError, PtftError, RecipeError
from ptft.recipe import Comparison, Recipe
from ptft.recipe.publication import load_foreign

__all__ = ["check_unlearned", "unlearned_told"]

_LOOKED_AT = 8192
"""Pictures that the start learned from, held against those that are asked."""


def check_unlearned(comparison: Comparison, target: Target) -> None:
    """Hold the sets of ``compare.ask_train`` against what the start learned from, as far as the
    records of its runs tell and their data can still be read: against so many pictures of each
    run, evenly spread where there are more.

    Raises:
        RecipeError: the start learned from a picture that is asked.
    """
    names = comparison.compare.ask_train
    if not names:
        return
    learned: dict[bytes, str] = {}
    for recipe in _runs(comparison):
        learned |= pictures_of(_learned(recipe))
    for kept in target.retained:
        if kept.name not in names:
            continue
        shared = learned.keys() & pictures_of(kept.val).keys()
        if shared:
            first = sorted(learned[digest] for digest in shared)[0]
            raise RecipeError(
                f"compare.ask_train: {kept.name!r}: the start learned from {len(shared)} of its "
                f"pictures, such as {first}; allowed: sets whose train side it did not learn from"
            )


def unlearned_told(comparison: Comparison, target: Target) -> str | None:
    """Tell in a sentence what is asked beside ``val``; None where nothing is."""
    names = comparison.compare.ask_train
    if not names:
        return None
    selected = selected_on(comparison)
    parts = [
        f"{one.name} ({len(one.val):,} pictures"
        + (", without val, on which the start was stopped early)" if one.name in selected else ")")
        for one in target.retained
        if one.name in names
    ]
    return (
        "What is kept is judged by train as well, of which the start is said not to have learned: "
        f"{', '.join(parts)}."
    )


def _learned(recipe: Recipe) -> Iterator[tuple[SampleSet, int]]:
    try:
        samples = open_split(recipe.data, "train", seed=recipe.seed)
    except (DataError, RecipeError):  # what it learned from lies elsewhere now
        return
    step = max(1, -(-len(samples) // _LOOKED_AT))
    yield from ((samples, index) for index in range(0, len(samples), step))


def _runs(comparison: Comparison) -> Iterator[Recipe]:
    """The recipe of the run that made the start, of the one that this one started from, and so
    on."""
    recipe: Recipe = comparison
    seen: set[Path] = set()
    while True:
        try:
            run = run_of_start(recipe)
        except PtftError:  # an older start lies elsewhere now
            return
        if run is None or run.resolve() in seen:
            return
        seen.add(run.resolve())
        recipe = load_foreign(run / RunFiles.RECIPE)
        yield recipe
