"""What a page shows of a classifier: which classes are taken for which, and pictures that are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ConfusionRow", "ConfusionTable", "Pair", "ShownPicture", "confused_pairs", "confusion"]

_OTHERS = "others"
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class ConfusionRow:
    """Pictures of a class.

    Attributes:
        name: of the class.
        total: of its pictures.
        counts: how many of them were taken for each class of the table, in its order.
    """

    name: str
    total: int
    counts: list[int]

    def share(self, place: int) -> float:
        """The share of a cell, of 1."""
        return self.counts[place] / self.total if self.total else 0.0


@dataclass(frozen=True)
class ConfusionTable:
    """Classes down: what pictures show; classes across: what was said.

    Attributes:
        names: across; the last is ``others`` where there are more classes than are shown.
        rows: down.
        note: what is left out, in words; empty where nothing is.
    """

    names: list[str]
    rows: list[ConfusionRow]
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """One class that was taken for another: ``count`` of ``total`` pictures."""

    shown: str
    said: str
    count: int
    total: int


@dataclass(frozen=True)
class ShownPicture:
    """A picture and what was said of it.

    Attributes:
        image: a data URI; "" of one that could not be read.
        name: of the sample.
        shown: its class.
        said: the class that it was taken for, with what else there is to say.
    """

    image: str
    name: str
    shown: str
    said: str


def confusion(
    labels_n: Numbers, said_n: Numbers, classes: Sequence[str], *, most: int = 20
) -> ConfusionTable:
    """Count what was said of the pictures of each class.

    Args:
        labels_n: the right classes, by number.
        said_n: those that were said.
        most: classes that are shown: those with most mistakes, in their order.
    """
    count = len(classes)
    counts_cc = np.bincount(labels_n * count + said_n, minlength=count * count)
    counts_cc = counts_cc.reshape(count, count)
    wrong_c = counts_cc.sum(1) + counts_cc.sum(0) - 2 * counts_cc.diagonal()
    shown = np.sort(np.argsort(-wrong_c, kind="stable")[:most])
    names = [classes[place] for place in shown]
    rows = []
    for place in shown:
        row = counts_cc[place]
        own = row[shown].tolist()
        total = int(row.sum())
        rows.append(ConfusionRow(classes[place], total, [*own, total - sum(own)]))
    if count <= most:
        return ConfusionTable(names, [_without_others(row) for row in rows])
    note = f"the {most} of {count:,} classes with most mistakes"
    return ConfusionTable([*names, _OTHERS], rows, note)


def confused_pairs(
    labels_n: Numbers, said_n: Numbers, classes: Sequence[str], *, most: int = 12
) -> list[Pair]:
    """Find the classes that are taken for another most often, by count."""
    wrong = labels_n != said_n
    pairs, counts = np.unique(
        np.stack([labels_n[wrong], said_n[wrong]], axis=1), axis=0, return_counts=True
    )
    totals_c = np.bincount(labels_n, minlength=len(classes))
    order = np.argsort(-counts, kind="stable")[:most]
    return [
        Pair(classes[shown], classes[said], int(counts[place]), int(totals_c[shown]))
        for place in order
        for shown, said in [pairs[place]]
    ]


def _without_others(row: ConfusionRow) -> ConfusionRow:
    return ConfusionRow(row.name, row.total, row.counts[:-1])
