"""Samples of each class in each split, side by side."""

from collections.abc import Sequence
from statistics import median

from ptft.data.checks.check import Checked
from ptft.look.drawings import bar
from ptft.pages.markup import Markup, element

__all__ = ["class_tables"]

_SHOWN = 40  # classes of a table, before it is folded
_MOST = 2000  # classes of the folded one


def class_tables(splits: Sequence[Checked]) -> Markup | None:
    """A table for each set of classes; None where no split has any that are counted."""
    groups: dict[tuple[str, ...], list[Checked]] = {}
    for found in splits:
        if found.survey.classes is not None and found.survey.counts is not None:
            groups.setdefault(tuple(found.survey.classes), []).append(found)
    if not groups:
        return None
    tables = [_table(names, group) for names, group in groups.items()]
    return element("section", element("h2", "Classes"), *tables)


def _table(names: Sequence[str], group: Sequence[Checked]) -> Markup:
    counts = [list(found.survey.counts or []) for found in group]
    # the most frequent first, as far as the first split tells; then in the order of their numbers
    order = sorted(range(len(names)), key=lambda number: (-counts[0][number], number))
    most = [max(own, default=0) for own in counts]
    rows = [_row(names, number, counts, most) for number in order[:_MOST]]
    head = element(
        "tr",
        element("th", "class", scope="col"),
        *(element("th", found.label, scope="col", colspan=2) for found in group),
    )
    lines = [element("li", line) for line in map(_balance, group)]
    parts: list[Markup] = [element("ul", *lines, class_="notes")]
    parts += _folded(head, rows, len(names))
    return element("div", *parts)


def _folded(head: Markup, rows: Sequence[Markup], count: int) -> list[Markup]:
    first = _wide(head, rows[:_SHOWN])
    if len(rows) <= _SHOWN:
        return [first]
    shown = f"the other {count - _SHOWN:,} classes"
    if count > len(rows):
        shown += f", {len(rows) - _SHOWN:,} of them here"
    rest = element("details", element("summary", shown), _wide(head, rows[_SHOWN:]))
    return [first, rest]


def _wide(head: Markup, rows: Sequence[Markup]) -> Markup:
    table = element("table", element("tbody", head, *rows), class_="classes")
    return element("div", table, class_="wide")


def _row(
    names: Sequence[str], number: int, counts: Sequence[list[int]], most: Sequence[int]
) -> Markup:
    cells: list[Markup] = []
    for split, own in enumerate(counts):
        count = own[number]
        style = f"s{split % 8}"
        cells.append(element("td", bar(count, most[split], style), class_="bars"))
        cells.append(element("td", f"{count:,}", class_=None if count else "none"))
    return element("tr", element("th", names[number], scope="row", title=number), *cells)


def _balance(found: Checked) -> str:
    """The rarest and the most frequent class of a split, in words."""
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
