"""The cells of a comparison, and the folder that they are kept in, one file each.

A cell is written when it is complete, so a comparison that was killed goes on from its finished
ones; a cell that belongs to another recipe is never read.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ptft.artifact import read_json, write_json
from ptft.errors import ArtifactError

__all__ = ["Cell", "Cells", "Costs"]


@dataclass(frozen=True)
class Costs:
    """What a cell took.

    Attributes:
        cpu_seconds: of its own training, on one thread; trials are in ``search_cpu_seconds``.
        gpu_seconds: wall time of training where it ran on a GPU, else 0.
        flops: of training, forward and backward, counted on one step.
        peak_bytes: most memory that the process held beyond what it began with.
        artefact_bytes: what has to be stored for this arm beside the starting model.
        trainable_share: of the model's parameters.
    """

    cpu_seconds: float = 0.0
    search_cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    flops: float = 0.0
    peak_bytes: int = 0
    artefact_bytes: int = 0
    trainable_share: float = 0.0


@dataclass(frozen=True)
class Cell:
    """One arm at one budget and seed.

    Attributes:
        arm: its name; that of a mix is ``<arm>+wise``.
        budget, seed: which labels it saw; the start saw none, but is chosen by as many.
        chosen: hyperparameters of the best trial, and ``alpha`` of a mix.
        val, test: the target's metric, shares of 1.
        val_hits, test_hits: 0 or 1 for each query, for paired intervals.
        val_retained, test_retained: figures on each retained set, as shares of the start's.
        ece, ece_scaled: calibration error on test, before and after temperature scaling on val.
        temperature: that scaling's.
        passed_over: counts of what of test was left out or cut, by name; only those above 0.
    """

    arm: str
    kind: str
    budget: int
    seed: int
    chosen: dict[str, Any]
    val: float
    test: float
    val_hits: str
    test_hits: str
    val_retained: dict[str, float]
    test_retained: dict[str, float]
    ece: float
    ece_scaled: float
    temperature: float
    passed_over: dict[str, int] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)

    @property
    def val_retention(self) -> float:
        """Mean share of the start's figures that is kept; 1 with nothing to retain."""
        return _mean(self.val_retained)

    @property
    def test_retention(self) -> float:
        """The same on test."""
        return _mean(self.test_retained)


class Cells:
    """The finished cells in a folder.

    Args:
        folder: of the comparison.
        digest: of its recipe; a cell of another recipe is an error.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder / "cells"
        self.digest = digest

    def write(self, cell: Cell) -> None:
        """Write a finished cell into the folder; one that is there stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(cell.arm, cell.budget, cell.seed)
        if not path.is_file():
            write_json(path, {"of": self.digest, **asdict(cell)})

    def read(self, arm: str, budget: int, seed: int) -> Cell | None:
        """Read a finished cell; None where it is not finished.

        Raises:
            ArtifactError: it is not of this comparison.
        """
        path = self._path(arm, budget, seed)
        if not path.is_file():
            return None
        values = read_json(path)
        if values.pop("of", None) != self.digest:
            raise ArtifactError(
                f"{path}: of another comparison; give run.dir, or delete {self.folder.parent}"
            )
        return Cell(**{**values, "costs": Costs(**values["costs"])})

    def all(self) -> list[Cell]:
        """Read every finished cell, sorted by arm, budget and seed."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            arm, budget, seed = path.stem.rsplit("_", 2)
            cell = self.read(arm, int(budget), int(seed))
            assert cell is not None
            found.append(cell)
        return sorted(found, key=lambda cell: (cell.arm, cell.budget, cell.seed))

    def _path(self, arm: str, budget: int, seed: int) -> Path:
        return self.folder / f"{arm}_{budget}_{seed}.json"


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares) if shares else 1.0
