"""The arms of a comparison: their cells over the seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptft.compare.posterior import ArmAnswers
from ptft.compare.results import MIXED, Cell, shown_name
from ptft.compare.stats import AnswerRow, Hits, band, hits_of

__all__ = ["ANSWERS", "Arm", "gather"]

ANSWERS = ("val_sq", "test_sq", "asked", "val_kept", "test_kept")
"""Attributes of an arm that hold every answer, which no report repeats."""


@dataclass(frozen=True)
class Arm:
    """An arm at a budget over its seeds: means of its cells.

    Attributes:
        val_sq, test_sq: hits of each seed and query, for intervals.
        asked: what the rule goes by: validation, and what of ``train`` was not learned from.
        val_kept, test_kept: hits on each retained set.
        low, high: band of the test figure.
        passes: over the labels; 0 where the arm takes no steps, or that is not on record.
        base, unlabelled: the labelled arm that it builds on, "" of one that builds on none; and how
            many pictures without labels it learned from.
        cpu_seconds: of one training, with the search's shared among the seeds.
    """

    name: str
    kind: str
    budget: int
    seeds: int
    val: float
    test: float
    low: float
    high: float
    val_retention: float
    test_retention: float
    test_retained: dict[str, float]
    ece: float | None
    ece_scaled: float | None
    trainable_share: float
    cpu_seconds: float
    wall_seconds: float
    gpu_seconds: float
    flops: float
    peak_bytes: int
    artefact_bytes: int
    chosen: dict[str, object]
    val_sq: Hits
    test_sq: Hits
    asked: ArmAnswers
    val_kept: dict[str, Hits]
    test_kept: dict[str, Hits]
    base: str = ""
    unlabelled: int = 0
    passes: float = 0.0

    @property
    def shown(self) -> str:
        """Its name in words: a mix is no ``+wise`` there."""
        return shown_name(self.name)


def gather(cells: Iterable[Cell], *, confidence: float) -> list[Arm]:
    """Average the cells of each arm at each budget over their seeds."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.arm, cell.budget), []).append(cell)
    return [
        _arm(name, budget, found, confidence=confidence)
        for (name, budget), found in sorted(groups.items(), key=lambda item: item[0][::-1])
    ]


def _arm(name: str, budget: int, cells: list[Cell], *, confidence: float) -> Arm:
    test_sq = hits_of([cell.test_hits for cell in cells])
    low, high = band(test_sq, confidence=confidence)
    costs = [cell.costs for cell in cells]

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    names = cells[0].test_retained
    return Arm(
        name=name,
        kind=cells[0].kind if not name.endswith(MIXED) else "wise",
        budget=budget,
        seeds=len(cells),
        val=mean(cell.val for cell in cells),
        test=mean(cell.test for cell in cells),
        low=low,
        high=high,
        val_retention=mean(cell.val_retention for cell in cells),
        test_retention=mean(cell.test_retention for cell in cells),
        test_retained={key: mean(cell.test_retained[key] for cell in cells) for key in names},
        ece=_mean_told(cell.ece for cell in cells),
        ece_scaled=_mean_told(cell.ece_scaled for cell in cells),
        trainable_share=costs[0].trainable_share,
        cpu_seconds=mean(cost.cpu_seconds for cost in costs)
        + sum(cost.search_cpu_seconds for cost in costs) / len(costs),
        wall_seconds=mean(cost.wall_seconds for cost in costs),
        gpu_seconds=mean(cost.gpu_seconds for cost in costs),
        flops=mean(cost.flops for cost in costs),
        peak_bytes=max(cost.peak_bytes for cost in costs),
        artefact_bytes=costs[0].artefact_bytes,
        chosen=dict(cells[0].chosen),
        val_sq=hits_of([cell.val_hits for cell in cells]),
        test_sq=test_sq,
        asked=_asked(cells),
        val_kept=_kept_hits([cell.val_kept for cell in cells]),
        test_kept=_kept_hits([cell.test_kept for cell in cells]),
        base=cells[0].base,
        unlabelled=cells[0].unlabelled,
        passes=cells[0].passes,
    )


def _mean_told(values: Iterable[float | None]) -> float | None:
    """The mean of what cells tell; None where they do not."""
    told = [value for value in values if value is not None]
    return float(np.mean(told)) if told else None


def _asked(cells: Sequence[Cell]) -> ArmAnswers:
    """All that the seeds were asked. Where a sample is not one query, nothing tells which queries
    of two cells are the same; then each has its own."""
    rows: list[dict[object, float]] = []
    for cell in cells:
        val: Sequence[object] = cell.val_of or _own_queries(cell)
        hits = hits_of([cell.val_asked or cell.val_hits])[0].tolist()
        row: dict[object, float] = {("val", one): hit for one, hit in zip(val, hits, strict=True)}
        if cell.train_of:
            more = zip(cell.train_of, hits_of([cell.train_hits])[0].tolist(), strict=True)
            row |= {("train", one): hit for one, hit in more}
        rows.append(row)
    queries = sorted({query for row in rows for query in row}, key=repr)
    hits_sq = np.array([[row.get(query, np.nan) for query in queries] for row in rows])
    return ArmAnswers(queries, hits_sq)


def _own_queries(cell: Cell) -> list[tuple[int, int, int]]:
    return [(cell.budget, cell.seed, number) for number in range(len(cell.val_hits))]


def _kept_hits(kept: Sequence[Mapping[str, AnswerRow]]) -> dict[str, Hits]:
    return {name: hits_of([one[name] for one in kept]) for name in kept[0]}
