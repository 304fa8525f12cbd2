"""The cells of a comparison, and the folder that they are kept in, one file each.

A cell is written when it is complete, so a comparison that was killed goes on from its finished
ones, and so does one that has grown (:mod:`ptft.compare.keys`).
"""

import glob
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, with_config

from ptft.artifact import read_as, write_json
from ptft.compare.cell_checks import check_cell, check_together
from ptft.compare.keys import CellKey, Keys
from ptft.compare.stats import AnswerRow, Figure
from ptft.errors import ArtifactError
from ptft.recipe import ArmSection, Comparison

__all__ = ["MIXED", "Cell", "Cells", "Costs", "TrialRecord", "cell_name", "shown_name"]

MIXED = "+wise"
"""What the name of a mix ends with, behind its arm's."""

_Count = Annotated[int, Field(ge=0, lt=2**62)]
_PassedOver = Annotated[
    str, StringConstraints(pattern="^(skipped|captions_ended_early|captions_too_long)$")
]
_CLOSED = ConfigDict(extra="forbid")


@with_config(_CLOSED)
@dataclass(frozen=True)
class Costs:
    """What a cell took.

    Attributes:
        cpu_seconds: of its own training, on one thread; trials are in ``search_cpu_seconds``.
        wall_seconds: of the same training by the clock, beside whatever else ran.
        gpu_seconds: wall time of training where it ran on a GPU, else 0.
        flops: of training, forward and backward, counted on one step; with what is trained before.
        peak_bytes: most memory that a run of two steps took, measured first of all in the job's
            own process; of a GPU the GPU's.
        artefact_bytes: what has to be stored for this arm beside the starting model.
        trainable_share: of the model's parameters.
    """

    cpu_seconds: Figure = 0.0
    search_cpu_seconds: Figure = 0.0
    wall_seconds: Figure = 0.0
    gpu_seconds: Figure = 0.0
    flops: Figure = 0.0
    peak_bytes: _Count = 0
    artefact_bytes: _Count = 0
    trainable_share: Figure = 0.0


@with_config(_CLOSED)
@dataclass(frozen=True)
class TrialRecord:
    """What a trial showed, so that later ones can go on from it.

    Attributes:
        values: dotted keys and what they were set to.
        val: the target's metric on validation; None of a trial that was given up.
        short: by how much it retained too little.
        reports: of the unfinished model: number, metric, by how much it retained too little.
        cpu_seconds: that it took.
    """

    values: dict[str, Any]
    val: Figure | None
    short: Figure
    reports: list[tuple[_Count, Figure, Figure]]
    cpu_seconds: Figure


@with_config(_CLOSED)
@dataclass(frozen=True)
class Cell:
    """One arm at one budget and seed.

    Attributes:
        arm: its name; that of a mix is ``<arm>+wise``.
        budget, seed: which labels it saw; the start saw none.
        chosen: hyperparameters of the best trial, and ``alpha`` of a mix.
        val, test: the target's metric, shares of 1.
        own: the same on what of ``val`` the budget allows, by which the rate, the share of a mix
            and the temperature were chosen.
        val_hits, test_hits: 0 or 1 for each query, for paired intervals; of a detector a value for
            each picture.
        val_retained, test_retained: figures on each retained set, as shares of the start's.
        ece, ece_scaled: calibration error on test, before and after temperature scaling on val;
            None of a detector.
        temperature: that scaling's.
        passed_over: counts of what of test was left out or cut, by name; only those above 0.
        test_said: the class that is said of each query of test, by its number in ``ClassQueries``;
            empty where queries are no pictures of classes.
        trials: that ``chosen`` was chosen from, of the first seed's cell.
        val_of: numbers in ``val`` of the queries; empty where a sample is not one query.
        val_asked: of a retrieval, answers of ``val`` whose mean is the recall among as many
            candidates as ``test`` has, see :mod:`ptft.compare.candidates`; of classes those by
            margins, see :mod:`ptft.compare.margins`; empty of others.
        train_of, train_hits: of samples of ``train`` that this model did not learn from, as
            ``val_of`` and ``val_asked``, or ``val_hits`` where that is empty.
        passes: over the labels, of an arm that takes steps; 0 where that is not on record.
        base, unlabelled: the labelled arm that it builds on, "" of one that builds on none; and how
            many pictures without labels it learned from.
        val_kept, test_kept: 0 or 1 for each query of each retained set; of a retrieval ``val`` as
            ``val_asked``, and both with all answers of a picture together where it has several
            captions.
    """

    arm: str
    kind: str
    budget: _Count
    seed: _Count
    chosen: dict[str, Any]
    val: Figure
    own: Figure
    test: Figure
    val_hits: AnswerRow
    test_hits: AnswerRow
    val_retained: dict[str, Figure]
    test_retained: dict[str, Figure]
    ece: Figure | None
    ece_scaled: Figure | None
    temperature: Figure | None
    passed_over: dict[_PassedOver, _Count] = field(default_factory=dict)
    test_said: list[_Count] = field(default_factory=list)
    costs: Costs = field(default_factory=Costs)
    trials: list[TrialRecord] = field(default_factory=list)
    val_of: list[_Count] = field(default_factory=list)
    val_asked: list[Figure] = field(default_factory=list)
    train_of: list[_Count] = field(default_factory=list)
    train_hits: AnswerRow = ""
    base: str = ""
    unlabelled: _Count = 0
    passes: Figure = 0.0
    val_kept: dict[str, AnswerRow] = field(default_factory=dict)
    test_kept: dict[str, AnswerRow] = field(default_factory=dict)

    @property
    def val_retention(self) -> float:
        """Mean share of the start's figures that is kept; 1 with nothing to retain."""
        return _mean(self.val_retained)

    @property
    def test_retention(self) -> float:
        """The same on test."""
        return _mean(self.test_retained)


@with_config(_CLOSED)
@dataclass(frozen=True)
class _Kept(Cell):
    """A cell as its file has it, with what its models learned from."""

    of: str = ""


class Cells:
    """The finished cells of a comparison; others may lie in its folder, of it as it was before.

    Args:
        folder: of the comparison.
        comparison: whose cells are wanted.
    """

    def __init__(self, folder: Path, comparison: Comparison) -> None:
        self.folder = folder / "cells"
        self._comparison = comparison
        self._section = comparison.compare
        self._keys = Keys(comparison)

    def write(self, cell: Cell) -> None:
        """Write a finished cell into the folder; one that is there stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(cell.arm, cell.budget, cell.seed)
        if not path.is_file():
            write_json(path, {"of": self._key(cell.arm, cell.budget).learned, **asdict(cell)})

    def read(self, arm: str, budget: int, seed: int) -> Cell | None:
        """Read a finished cell; None where it is not finished.

        Raises:
            ArtifactError: it is not what its name says.
        """
        path = self._path(arm, budget, seed)
        if not path.is_file():
            return None
        learned, cell = _read(path)
        if learned != self._key(arm, budget).learned:
            raise ArtifactError(f"{path}: of another comparison; delete it, and it is run again")
        check_cell(path, cell, (arm, budget, seed), self._own(arm), self._comparison)
        return cell

    def relatives(self, arm: str, budget: int, seed: int) -> list[Cell]:
        """Finished cells of the same arm, budget and seed that were chosen from another number of
        trials, those from most first."""
        learned = self._key(arm, budget).learned
        found = map(_read, sorted(self.folder.glob(f"{glob.escape(arm)}_{budget}_{seed}.*.json")))
        cells = [cell for other, cell in found if other == learned]
        for cell in cells:
            check_cell(self.folder, cell, (arm, budget, seed), self._own(arm), self._comparison)
        return sorted(cells, key=lambda cell: -len(cell.trials))

    def all(self) -> list[Cell]:
        """Read every finished cell, sorted by arm, budget and seed."""
        section = self._section
        labels = [name for arm in section.arms for name in (arm.label, f"{arm.label}{MIXED}")]
        found = [
            self.read(*place) for place in product(labels, section.budgets, range(section.seeds))
        ]
        present = [cell for cell in found if cell is not None]
        check_together(self.folder, present)
        return sorted(present, key=lambda cell: (cell.arm, cell.budget, cell.seed))

    @property
    def missing(self) -> int:
        """How many are not finished, mixes not counted."""
        section = self._section
        places = product([arm.label for arm in section.arms], section.budgets)
        return sum(self.missing_of(*place) for place in places)

    def missing_of(self, arm: str, budget: int) -> int:
        """How many seeds of an arm at a budget are not finished."""
        seeds = range(self._section.seeds)
        return sum(not self._path(arm, budget, seed).is_file() for seed in seeds)

    @property
    def unused(self) -> int:
        """How many files there are of other arms or settings, or of a ptft before keys."""
        return len(list(self.folder.glob("[!.]*.json"))) - len(self.all())

    def _key(self, arm: str, budget: int) -> CellKey:
        return self._keys.of(self._own(arm), budget)

    def _own(self, arm: str) -> ArmSection:
        return next(one for one in self._section.arms if one.label == arm.removesuffix(MIXED))

    def _path(self, arm: str, budget: int, seed: int) -> Path:
        return self.folder / f"{cell_name(arm, budget, seed, self._key(arm, budget))}.json"


def cell_name(arm: str, budget: int, seed: int, key: CellKey) -> str:
    """Name of a cell's file, without its ending."""
    return f"{arm}_{budget}_{seed}.{key.name}"


def shown_name(arm: str) -> str:
    """An arm's name in words."""
    return f"{arm.removesuffix(MIXED)} mixed" if arm.endswith(MIXED) else arm


def _read(path: Path) -> tuple[str, Cell]:
    """What a cell's models learned from, and the cell."""
    kept = read_as(path, _Kept)
    return kept.of, Cell(**{one.name: getattr(kept, one.name) for one in fields(Cell)})


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares) if shares else 1.0
