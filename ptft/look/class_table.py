"""Samples of each class in each split, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ptft.data.checks.check import Checked

__all__ = ["ClassTable", "class_tables"]

_UNFOLDED = 40  # classes of a table, before it is folded
_MOST = 2000  # classes of the folded one


@dataclass(frozen=True)
class ClassTable:
    """The classes that some splits have in common.

    Attributes:
        splits: their names.
        balance: the rarest and the most frequent class of each split, in words.
        most: the greatest count of each split.
        rows: number and name of a class, and its count in each split.
        folded: the rows that are shown when asked for.
        rest: what the folded rows are, in words.
    """

    splits: list[str]
    balance: list[str]
    most: list[int]
    rows: list[tuple[int, str, list[int]]]
    folded: list[tuple[int, str, list[int]]]
    rest: str


def class_tables(splits: Sequence[Checked]) -> list[ClassTable]:
    """Tabulate each set of classes that are counted."""
    groups: dict[tuple[str, ...], list[Checked]] = {}
    for found in splits:
        if found.survey.classes is not None and found.survey.counts is not None:
            groups.setdefault(tuple(found.survey.classes), []).append(found)
    return [_table(names, group) for names, group in groups.items()]


def _table(names: Sequence[str], group: Sequence[Checked]) -> ClassTable:
    counts = [list(found.survey.counts or []) for found in group]
    # the most frequent first, as far as the first split tells; then in the order of their numbers
    order = sorted(range(len(names)), key=lambda number: (-counts[0][number], number))
    rows = [(number, names[number], [own[number] for own in counts]) for number in order[:_MOST]]
    rest = f"the other {len(names) - _UNFOLDED:,} classes"
    if len(names) > len(rows):
        rest += f", {len(rows) - _UNFOLDED:,} of them here"
    return ClassTable(
        splits=[found.label for found in group],
        balance=[_balance(found) for found in group],
        most=[max(own, default=0) for own in counts],
        rows=rows[:_UNFOLDED],
        folded=rows[_UNFOLDED:],
        rest=rest,
    )


def _balance(found: Checked) -> str:
    """Name the rarest and the most frequent class of a split in a sentence."""
    survey = found.survey
    pairs = list(zip(survey.counts or [], survey.classes or [], strict=True))
    if not pairs:
        return f"{found.label}: no class"
    least, most = min(pairs), max(pairs)
    middle = median(count for count, _ in pairs)
    words = (
        f"{found.label}: {len(survey.seen):,} of {len(pairs):,} classes occur; from {least[0]:,} "
        f"({least[1]}) to {most[0]:,} samples ({most[1]}), median {middle:,g}"
    )
    if survey.unlabelled:
        words += f"; {survey.unlabelled:,} samples have no class"
    return words + (f"; labels are {survey.labels_are}" if survey.labels_are else "")
