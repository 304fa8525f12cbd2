"""Which classes each arm wins and loses, and the pictures that tuning lost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptft.compare.arms import START
from ptft.compare.queries import QUERIES, ClassQueries
from ptft.compare.recommend import Recommendation
from ptft.compare.results import MIXED, Cell, shown_name
from ptft.data import SampleSet
from ptft.errors import ArtifactError, SampleError
from ptft.pages.classes import (
    ConfusionTable,
    Pair,
    ShownPicture,
    confused_pairs,
    confusion,
)
from ptft.pages.thumbnail import thumbnail_uri

__all__ = ["ClassView", "class_view"]

_ROWS = 40  # classes of the table
_PICTURES = 24
_SIDE = 128  # pixels of a thumbnail's longer side


@dataclass(frozen=True)
class ClassView:
    """One budget, by class.

    Attributes:
        budget: of labels.
        arm: what is recommended there.
        said: a sentence an arm.
        table: a row a class, a column an arm (of the mixes what is recommended): shares found, in
            mean over seeds.
        note: what of the table is left out.
        confusion: of the recommended arm, all seeds together.
        pairs: the classes that it takes for others most often.
        lost: of the first seed, pictures that it gets wrong and the start got right.
        lost_count: how many there are.
    """

    budget: int
    arm: str
    said: list[str]
    table: list[list[str]]
    note: str
    confusion: ConfusionTable
    pairs: list[Pair]
    lost: list[ShownPicture]
    lost_count: int


def class_view(
    cells: Sequence[Cell],
    choice: Recommendation,
    queries: ClassQueries | None,
    test: SampleSet | None,
) -> ClassView | None:
    """Look at the test pictures of one budget by class; None where the target has no classes.

    Args:
        queries: of test.
        test: whose pictures are shown; None: none are.
    """
    own = [cell for cell in cells if cell.budget == choice.budget and cell.test_said]
    if queries is None or not own:
        return None
    count = len(queries.classes)
    for cell in own:
        if len(cell.test_said) != len(queries.labels) or max(cell.test_said) >= count:
            raise ArtifactError(
                f"{cell.arm} at {cell.budget}, seed {cell.seed}: test_said: allowed: "
                f"{len(queries.labels)} numbers below {count}, as {QUERIES} has them"
            )
    labels_q = np.array(queries.labels)
    said = {
        arm: np.array([cell.test_said for cell in own if cell.arm == arm])
        for arm in dict.fromkeys(cell.arm for cell in own)
    }
    start = next((cell.arm for cell in own if cell.kind == START), None)
    if start is None or choice.arm not in said:
        return None
    found = {arm: _by_class(said_sq, labels_q, queries) for arm, said_sq in said.items()}
    taken_sq = said[choice.arm]
    seen = np.bincount(labels_q, minlength=len(queries.classes))
    labels_all = np.tile(labels_q, len(taken_sq))
    table, note = _table(found, start, choice.arm, queries, seen)
    lost = np.flatnonzero((said[start][0] == labels_q) & (taken_sq[0] != labels_q))
    shown = [_shown(int(place), taken_sq[0], queries, test) for place in lost[:_PICTURES]]
    return ClassView(
        choice.budget,
        shown_name(choice.arm),
        [_sentence(arm, found[arm] - found[start], queries) for arm in found if arm != start],
        table,
        note,
        confusion(labels_all, taken_sq.ravel(), queries.classes),
        confused_pairs(labels_all, taken_sq.ravel(), queries.classes),
        shown if test is not None else [],
        len(lost),
    )


def _by_class(
    said_sq: NDArray[np.int64], labels_q: NDArray[np.int64], queries: ClassQueries
) -> NDArray[np.float64]:
    """The share of each class's pictures that is found, in mean over seeds; NaN without any."""
    count = len(queries.classes)
    right_q = (said_sq == labels_q).mean(axis=0)
    seen_c = np.bincount(labels_q, minlength=count)
    sums_c = np.bincount(labels_q, weights=right_q, minlength=count)
    return np.where(seen_c > 0, sums_c / np.maximum(seen_c, 1), np.nan)


def _table(
    found: dict[str, NDArray[np.float64]],
    start: str,
    taken: str,
    queries: ClassQueries,
    seen: NDArray[np.int64],
) -> tuple[list[list[str]], str]:
    plain = [arm for arm in found if not arm.endswith(MIXED)]
    arms = list(dict.fromkeys([start, taken, *plain]))
    moved = np.nan_to_num(np.abs(found[taken] - found[start]))
    there = np.flatnonzero(seen)
    order = there[np.argsort(-moved[there], kind="stable")]
    rows = [["class", "pictures", *map(shown_name, arms)]]
    for place in order[:_ROWS]:
        shares = [f"{100 * found[arm][place]:.0f}" for arm in arms]
        rows.append([queries.classes[place], f"{seen[place]:,}", *shares])
    if len(order) <= _ROWS:
        return rows, ""
    return rows, f"the {_ROWS} of {len(order):,} classes that the recommended arm moves most"


def _sentence(arm: str, moved_c: NDArray[np.float64], queries: ClassQueries) -> str:
    """How many classes an arm wins and loses against the start, and which most."""
    moved = np.nan_to_num(moved_c)
    won, lost = int((moved > 0).sum()), int((moved < 0).sum())
    said = f"{shown_name(arm)}: {won} classes better than with the start, {lost} worse"
    ends = []
    if won:
        place = int(moved.argmax())
        ends.append(f"{queries.classes[place]} {100 * moved[place]:+.0f}")
    if lost:
        place = int(moved.argmin())
        ends.append(f"{queries.classes[place]} {100 * moved[place]:+.0f}")
    return f"{said} ({', '.join(ends)} points)." if ends else f"{said}."


def _shown(
    place: int, said_q: NDArray[np.int64], queries: ClassQueries, test: SampleSet | None
) -> ShownPicture:
    name = queries.names[place]
    shown, said = queries.classes[queries.labels[place]], queries.classes[said_q[place]]
    return ShownPicture(_thumbnail(queries.places[place], test), name, shown, f"taken for {said}")


def _thumbnail(place: int, test: SampleSet | None) -> str:
    """A data URI; "" where the picture is not here, or cannot be read."""
    if test is None:
        return ""
    try:
        return thumbnail_uri(test[place].image, _SIDE)
    except SampleError:
        return ""
