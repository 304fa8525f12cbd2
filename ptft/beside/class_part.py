"""The part of a page that looks at one classifier class by class."""

from dataclasses import dataclass

import numpy as np

from ptft.data import SampleSet, open_split
from ptft.errors import SampleError
from ptft.evaluate.class_answers import ClassAnswers
from ptft.pages.chart import Axis, Chart, Dot, Mark
from ptft.pages.classes import ConfusionTable, Pair, ShownPicture, confused_pairs, confusion
from ptft.pages.thumbnail import thumbnail_uri
from ptft.recipe import EvaluateItem, Recipe
from ptft.recipe.splits import has_pictures

__all__ = ["ClassPart", "class_part"]

_ROWS = 60  # classes of the table, the hardest first
_PICTURES = 24
_SIDE = 128  # pixels of a thumbnail's longer side
_TICKS = [(0.0, "0%"), (0.5, "50%"), (1.0, "100%")]


@dataclass(frozen=True)
class ClassPart:
    """One model's answers to one evaluation.

    Attributes:
        table: a row a class, the hardest first; the first row is the heading.
        note: what of it is left out.
        curve: accuracy over confidence.
        confusion: which classes are taken for which.
        pairs: the most frequent of these mistakes.
        worst: the mistakes that the model was surest of.
        wrong, images: how many there are of how many.
    """

    table: list[list[str]]
    note: str
    curve: Chart
    confusion: ConfusionTable
    pairs: list[Pair]
    worst: list[ShownPicture]
    wrong: int
    images: int


def class_part(answers: ClassAnswers, recipe: Recipe, item: EvaluateItem) -> ClassPart:
    """Look at a classifier class by class.

    Args:
        item: the evaluation of the recipe that was answered.

    Raises:
        DataError, RecipeError: its data cannot be opened, whose worst mistakes are shown.
    """
    section = item.data or recipe.data
    samples = open_split(section, item.split, seed=recipe.seed)
    pictures = has_pictures(section)
    figures = answers.per_class()
    seen = [name for name in figures if figures[name].images]
    hardest = sorted(seen, key=lambda name: figures[name].f1)
    rows = [["class", "pictures", "recall", "precision", "F1"]]
    for name in hardest[:_ROWS]:
        one = figures[name]
        shares = (f"{share:.1%}" for share in (one.recall, one.precision, one.f1))
        rows.append([name, f"{one.images:,}", *shares])
    note = f"the {_ROWS} hardest of {len(seen):,} classes" if len(seen) > _ROWS else ""
    return ClassPart(
        rows,
        note,
        _curve(answers),
        confusion(answers.labels_n, answers.said_n, answers.classes),
        confused_pairs(answers.labels_n, answers.said_n, answers.classes),
        [_shown(answers, row, samples, pictures) for row in answers.worst(_PICTURES)],
        int((answers.labels_n != answers.said_n).sum()),
        len(answers.labels_n),
    )


def _curve(answers: ClassAnswers) -> Chart:
    """The reliability diagram: on the broken line confidence is what it says."""
    bins = answers.calibration()
    most = max(one.images for one in bins)
    dots = [
        Dot(
            one.confidence,
            one.accuracy,
            2.0 + 5.0 * float(np.sqrt(one.images / most)),
            f"{one.images:,} pictures: {one.confidence:.0%} sure, {one.accuracy:.0%} right",
        )
        for one in bins
    ]
    line = [(one.confidence, one.accuracy) for one in bins]
    words = "; ".join(f"{one.confidence:.0%} sure, {one.accuracy:.0%} right" for one in bins)
    return Chart(
        "Calibration",
        words,
        Axis(0.0, 1.0, _TICKS, "confidence"),
        Axis(0.0, 1.0, _TICKS),
        [
            Mark(name="as sure as right", colour=7, dashed=True, line=[(0.0, 0.0), (1.0, 1.0)]),
            Mark(name="right", colour=0, line=line, dots=dots),
        ],
        note="larger dots are more pictures",
    )


def _shown(answers: ClassAnswers, row: int, samples: SampleSet, pictures: bool) -> ShownPicture:
    """A mistake with its picture, or with its text where there is none."""
    place = int(answers.places_n[row])
    said = f"{answers.classes[answers.said_n[row]]}, {answers.sure_n[row]:.0%} sure"
    shown, name, image = answers.classes[answers.labels_n[row]], samples.name(place), ""
    try:
        if pictures:
            image = thumbnail_uri(samples[place].image, _SIDE)
        else:
            name = samples.captions(place)[0]
    except (SampleError, IndexError):  # it could be read when it was asked
        pass
    return ShownPicture(image, name, shown, said)
