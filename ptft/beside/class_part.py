"""The part of a page that looks at one classifier class by class."""

from dataclasses import dataclass

import numpy as np

from ptft.data import SampleSet, open_split
from ptft.errors import SampleError
from ptft.evaluate.class_answers import CalibrationBin, ClassAnswers
from ptft.evaluate.label_answers import LabelAnswers
from ptft.pages.chart import Axis, Chart, Dot, Mark
from ptft.pages.classes import ConfusionTable, Pair, ShownPicture, confused_pairs, confusion
from ptft.pages.thumbnail import thumbnail_uri
from ptft.recipe import EvaluateItem, Recipe
from ptft.recipe.data import has_pictures

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
        curve: accuracy over confidence; None of similarities, which are no probabilities.
        confusion: which classes are taken for which; None where a picture may have several.
        pairs: the most frequent of these mistakes.
        worst: the mistakes that the model was surest of.
        wrong: how many there are of how many, in words.
    """

    table: list[list[str]]
    note: str
    curve: Chart | None
    confusion: ConfusionTable | None
    pairs: list[Pair]
    worst: list[ShownPicture]
    wrong: str


def class_part(
    answers: ClassAnswers | LabelAnswers, recipe: Recipe, item: EvaluateItem
) -> ClassPart:
    """Look at a classifier class by class.

    Args:
        item: the evaluation of the recipe that was answered.

    Raises:
        DataError, RecipeError: its data cannot be opened, whose worst mistakes are shown.
    """
    section = item.data or recipe.data
    samples = open_split(section, item.split, seed=recipe.seed)
    pictures = has_pictures(section)
    if isinstance(answers, LabelAnswers):
        return _labels_part(answers, samples, pictures)
    figures = answers.per_class()
    seen = [name for name in figures if figures[name].images]
    hardest = sorted(seen, key=lambda name: figures[name].f1)
    rows = [["class", "pictures", "recall", "precision", "F1"]]
    for name in hardest[:_ROWS]:
        one = figures[name]
        shares = (f"{share:.1%}" for share in (one.recall, one.precision, one.f1))
        rows.append([name, f"{one.images:,}", *shares])
    note = f"the {_ROWS} hardest of {len(seen):,} classes" if len(seen) > _ROWS else ""
    wrong = int((answers.labels_n != answers.said_n).sum())
    return ClassPart(
        rows,
        note,
        _curve(answers.calibration(), "pictures"),
        confusion(answers.labels_n, answers.said_n, answers.classes),
        confused_pairs(answers.labels_n, answers.said_n, answers.classes),
        [_shown(answers, row, samples, pictures) for row in answers.worst(_PICTURES)],
        f"{wrong:,} of {len(answers.labels_n):,} pictures are taken for another class",
    )


def _labels_part(answers: LabelAnswers, samples: SampleSet, pictures: bool) -> ClassPart:
    """Of classes that do not exclude each other."""
    figures = answers.per_class()
    hardest = sorted(
        (name for name in figures if figures[name].images),
        key=lambda name: figures[name].average_precision or 0.0,
    )
    heading = ["class", "pictures", "average precision"]
    told = answers.scores.thresholds_c is not None
    rows = [[*heading, "told from", "recall", "precision", "F1"] if told else heading]
    for name in hardest[:_ROWS]:
        images, *shares = figures[name]
        rows.append([name, f"{images:,}", *(f"{one:.1%}" for one in shares if one is not None)])
    wrong, all_of_them = int(answers.wrong().sum()), answers.scores.has_nc.numel()
    said = f"{wrong:,} of {all_of_them:,} decisions, one for each class of each picture, are wrong"
    return ClassPart(
        rows,
        f"the {_ROWS} hardest of {len(hardest):,} classes" if len(hardest) > _ROWS else "",
        _curve(answers.calibration(), "classes of pictures") if told else None,
        None,
        [],
        [_shown_label(answers, *one, samples, pictures) for one in answers.worst(_PICTURES)],
        said if told else "Similarities of prompts have no threshold, so that no class is told",
    )


def _curve(bins: list[CalibrationBin], of: str) -> Chart:
    """The reliability diagram: on the broken line confidence is what it says."""
    most = max(one.images for one in bins)
    dots = [
        Dot(
            one.confidence,
            one.accuracy,
            2.0 + 5.0 * float(np.sqrt(one.images / most)),
            f"{one.images:,} {of}: {one.confidence:.0%} sure, {one.accuracy:.0%} right",
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
        note=f"larger dots are more {of}",
    )


def _shown(answers: ClassAnswers, row: int, samples: SampleSet, pictures: bool) -> ShownPicture:
    """A mistake with its picture, or with its text where there is none."""
    said = f"{answers.classes[answers.said_n[row]]}, {answers.sure_n[row]:.0%} sure"
    shown = answers.classes[answers.labels_n[row]]
    return _with_picture(int(answers.places_n[row]), shown, said, samples, pictures)


def _shown_label(
    answers: LabelAnswers, row: int, number: int, samples: SampleSet, pictures: bool
) -> ShownPicture:
    """A class that a picture has and is not told, or the other way round."""
    scores, name = answers.scores, answers.classes[number]
    there = [answers.classes[one] for one in scores.has_nc[row].nonzero()[:, 0].tolist()]
    sure = float(scores.logits_nc[row, number].double().sigmoid())
    said = f"{'no ' * bool(scores.has_nc[row, number])}{name}, {sure:.0%} likely"
    shown = ", ".join(there) or "none of the classes"
    return _with_picture(int(scores.places_n[row]), shown, said, samples, pictures)


def _with_picture(
    place: int, shown: str, said: str, samples: SampleSet, pictures: bool
) -> ShownPicture:
    name, image = samples.name(place), ""
    try:
        if pictures:
            image = thumbnail_uri(samples[place].image, _SIDE)
        else:
            name = samples.captions(place)[0]
    except (SampleError, IndexError):  # it could be read when it was asked
        pass
    return ShownPicture(image, name, shown, said)
