"""A data section and the name of a split -> the sample set that they mean."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from ptft.data.fields.field_set import FieldSection, FieldSet
from ptft.data.fields.labels import LabelReading, Learn
from ptft.data.held_out import hold_out
from ptft.data.sample import Part, SampleSet, Subset, draw_val
from ptft.errors import DataError, RecipeError
from ptft.recipe.check import Split
from ptft.recipe.data import (
    BoxesData,
    DataSection,
    FolderData,
    MixtureData,
    ScenesData,
    ShardsData,
    TableData,
    has_split,
)
from ptft.recipe.paths import expand_paths

__all__ = ["kept_open", "open_split", "open_val"]


def open_split(
    section: DataSection,
    split: Split,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    key: str = "data",
) -> SampleSet:
    """Open one split.

    Args:
        section: of a recipe.
        split: which one; ``limit`` is applied to ``train`` alone.
        seed: of the recipe, which draws what ``limit`` keeps.
        classes: names to number the labels by where the section and the data name none, such as
            a trained model's. Absent: the training split's own labels, so that every split of a
            section has the same numbers.
        key: where the section stands in the recipe, for messages.

    Raises:
        RecipeError: the split is not given, or a path of it matches nothing.
        DataError: what lies there cannot be read as a set of samples.
    """
    if isinstance(section, MixtureData):
        return _open_mixture(section, split, seed, classes, key)
    if isinstance(section, BoxesData):
        return _open_boxes(section, split, seed, key)
    if isinstance(section, ScenesData):
        from ptft.data.sources.scenes import Scenes

        return _drawn(Scenes(section, split), section, split, seed)
    if section.hold_out is not None and split != "test":
        samples = _held_out(section, split, key, classes)
    elif getattr(section, split) is None:
        given = [name for name in ("train", "val", "test") if getattr(section, name) is not None]
        raise RecipeError(f"{key}.{split}: missing; given: {', '.join(given) or 'none'}")
    else:
        samples = _open_here(section, split, key, classes)
    samples = _drawn(samples, section, split, seed)
    if split == "train":
        _set_resample(samples, section, key)
    return samples


def _open_boxes(section: BoxesData, split: Split, seed: int, key: str) -> SampleSet:
    """Pictures with boxes; where nobody names the classes, those that occur in ``train``."""
    from ptft.data.sources.marked import MarkedPictures

    given = getattr(section, split)
    if given is None:
        named = [name for name in ("train", "val", "test") if getattr(section, name) is not None]
        raise RecipeError(f"{key}.{split}: missing; given: {', '.join(named) or 'none'}")
    paths = expand_paths(given, f"{key}.{split}")
    if len(paths) > 1:
        raise RecipeError(f"{key}.{split}: {given!r}: {len(paths)} paths; allowed: 1")
    classes = None
    if split != "train" and section.classes is None and section.train is not None:
        classes = _open_boxes(section, "train", seed, key).box_classes
    samples: SampleSet = MarkedPictures(section, paths[0], split, f"{key}.{split}", classes)
    if split == "train" and section.limit is not None and section.limit < len(samples):
        samples = Subset(samples, section.limit, seed)
    return samples


def _held_out(
    section: FieldSection, split: Split, key: str, classes: Sequence[str] | None
) -> SampleSet:
    """``train`` without the share that is ``val``, or that share."""
    where = f"{key}.hold_out: {section.hold_out}"
    assert section.hold_out is not None
    if section.train is None:
        raise RecipeError(f"{where}: of a train that is missing")
    whole = _open_here(section, "train", key, classes)
    if whole.in_order:
        raise RecipeError(f"{where}: this set is read in order only; allowed: a val split")
    held = hold_out(whole, section.hold_out)
    if not held.any() or held.all():
        what, other = ("no", "larger") if not held.any() else ("every", "smaller")
        raise RecipeError(
            f"{where}: holds {what} sample out of {len(whole):,}; allowed: a {other} one"
        )
    return Part(whole, np.flatnonzero(held if split == "val" else ~held))


def open_val(
    section: DataSection, most: int | None, *, seed: int, classes: Sequence[str] | None = None
) -> SampleSet:
    """Open ``val``, or at most so many samples of it, drawn by the seed; errors as open_split's."""
    val = open_split(section, "val", seed=seed, classes=classes)
    return val if most is None else draw_val(val, most, seed)


def _drawn(
    samples: SampleSet, section: ScenesData | FieldSection, split: Split, seed: int
) -> SampleSet:
    """What ``limit`` and ``shots`` leave of a training set."""
    limit, shots = section.limit, section.shots
    if split != "train" or (shots is None and (limit is None or limit >= len(samples))):
        return samples
    drawn_by = seed if section.draw_seed is None else section.draw_seed
    return Subset(samples, limit, drawn_by, shots)


def _set_resample(samples: SampleSet, section: FieldSection, key: str) -> None:
    """Set how a set is drawn from, as its section says, or refuse."""
    where = f"{key}.resample: 'class': "
    if section.resample == "class":
        labels = samples.labels()
        if samples.window is not None:
            raise RecipeError(
                f"{where}this set is read a piece at a time, and the samples of a class lie in all "
                "of them; allowed: none, uniform"
            )
        if labels is None or not (labels >= 0).any():
            raise RecipeError(
                f"{where}no sample has a label; allowed: none, uniform; or data.label"
            )
    samples.resample = section.resample


def _open_mixture(
    section: MixtureData, split: Split, seed: int, classes: Sequence[str] | None, key: str
) -> SampleSet:
    """``train``: all the parts, drawn from by their weights; else those that have the split."""
    from ptft.data.sources.class_captions import ClassCaptions
    from ptft.data.sources.mixture import Joined, Mixture

    has = [split == "train" or has_split(part.data, split) for part in section.parts]
    if not any(has):
        raise RecipeError(f"{key}.{split}: missing; no part of the mixture has it")
    numbers = [number for number, there in enumerate(has) if there]
    chosen = [section.parts[number] for number in numbers]
    parts = [
        open_split(part.data, split, seed=seed, classes=classes, key=f"{key}.parts.{number}.data")
        for number, part in zip(numbers, chosen, strict=True)
    ]
    parts = [
        ClassCaptions(part, one.templates, alone=False) if one.templates else part
        for part, one in zip(parts, chosen, strict=True)
    ]
    names = [part.name or "" for part in chosen]
    try:
        if split == "train":
            return Mixture(parts, names, [part.weight for part in chosen], f"{key}.parts")
        return Joined(parts, names)
    except DataError as error:
        raise DataError(f"{key}.parts: {error}") from None


@contextmanager
def kept_open() -> Iterator[None]:
    """Sets of fields that are opened inside are opened once: what is asked for again is the same
    set, as it was; ``limit`` and ``shots`` are parts of it. Nested, the outermost keeps them."""
    token = None if _kept.get() is not None else _kept.set({})
    try:
        yield
    finally:
        if token is not None:
            _kept.reset(token)


_kept: ContextVar[dict[tuple[Any, ...], FieldSet] | None] = ContextVar("kept_open", default=None)
_OF_PARTS = {
    "limit",
    "shots",
    "draw_seed",
}  # keys that do not change the set that others are parts of


def _open_here(
    section: FieldSection, split: Split, key: str, classes: Sequence[str] | None
) -> FieldSet:
    kept = _kept.get()
    if kept is None:
        return _open_anew(section, split, key, classes)
    given = None if classes is None else tuple(classes)
    about = (section.model_dump_json(by_alias=True, exclude=_OF_PARTS), split, given, Path.cwd())
    if about not in kept:
        kept[about] = _open_anew(section, split, key, classes)
    return kept[about]


def _open_anew(
    section: FieldSection, split: Split, key: str, classes: Sequence[str] | None
) -> FieldSet:
    def learn() -> LabelReading | None:
        if split == "train" or section.train is None:
            return None
        bare = section.model_copy(update={"join": "none", "picture_id": None})  # nothing to join
        return _open_here(bare, "train", key, None).reading

    named = section.boxes is None or section.classes is not None
    if not named and split != "train" and section.train is not None:
        classes = _open_here(section, "train", key, None).box_classes  # the same numbers
    try:
        return _open(section, split, f"{key}.{split}", classes, learn)
    except DataError as error:
        if str(error).startswith(f"{key}."):
            raise
        raise DataError(f"{key}.{split}: {error}") from None


def _open(
    section: FieldSection, split: Split, key: str, classes: Sequence[str] | None, learn: Learn
) -> FieldSet:
    if isinstance(section, ShardsData):
        from ptft.data.sources.shards import Shards, find_shards

        return Shards(section, find_shards(getattr(section, split), key), classes, learn)
    if isinstance(section, FolderData):
        from ptft.data.sources.folder import Folder

        paths = expand_paths(getattr(section, split), key)
        if len(paths) > 1:
            raise RecipeError(
                f"{key}: {getattr(section, split)!r}: {len(paths)} folders; allowed: 1"
            )
        return Folder(section, paths[0], classes, learn)
    if isinstance(section, TableData):
        from ptft.data.sources.table import open_table

        return open_table(section, split, key, classes, learn)
    assert_never(section)
