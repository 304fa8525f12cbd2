"""Whether cells, which may be anybody's, say what their names do, and fit each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptft.compare.arms import START, search_space
from ptft.errors import ArtifactError
from ptft.files.bounds import shown
from ptft.recipe import ArmSection, Comparison

if TYPE_CHECKING:
    from ptft.compare.results import Cell

__all__ = ["check_cell", "check_together"]

_AGAIN = "delete it, and it is run again"
_RETAINED = ("val_retained", "test_retained", "val_kept", "test_kept")


def check_cell(
    path: Path, cell: "Cell", place: tuple[str, int, int], own: ArmSection, comparison: Comparison
) -> None:
    """Hold a cell to its name, and what was chosen for it to what its arm searches: that goes into
    recipes, which then are the user's own.

    Args:
        path: for messages.
        place: arm, budget and seed by its name.
        own: the arm.

    Raises:
        ArtifactError: it is another's, lacks queries, or sets a key that nothing searches.
    """
    arm, budget, seed = place
    if (cell.arm, cell.budget, cell.seed, cell.kind) != (*place, own.kind):
        raise ArtifactError(f"{path}: not {own.kind} as {arm} at {budget}, seed {seed}; {_AGAIN}")
    allowed = set(search_space(comparison, own))
    chosen: Mapping[str, Any] = cell.chosen
    if arm != own.label:  # a mix
        alpha = chosen.get("alpha")
        if not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
            raise ArtifactError(f"{path}: chosen.alpha: {shown(alpha)}; allowed: 0 to 1")
        allowed.add("alpha")
    if strange := sorted(set(chosen) - allowed):
        told = ", ".join(sorted(allowed)) or "none"
        raise ArtifactError(f"{path}: chosen: {shown(strange[0])}; allowed: {told}")
    queries = {"val_of": len(cell.val_hits), "train_of": len(cell.train_hits)}
    queries["val_asked"] = len(cell.val_hits)
    queries["test_said"] = len(cell.test_hits)
    for key, count in queries.items():
        if len(getattr(cell, key)) not in (0, count):
            raise ArtifactError(f"{path}: {key}: {len(getattr(cell, key))}; allowed: {count}, or 0")
    if not cell.val_hits or not cell.test_hits:
        raise ArtifactError(f"{path}: without queries; {_AGAIN}")


def check_together(folder: Path, cells: Sequence["Cell"]) -> None:
    """Hold all cells of a budget to have been asked the same of test and of what is retained.

    Raises:
        ArtifactError: one was asked something else.
    """
    for budget in sorted({cell.budget for cell in cells}):
        at = [cell for cell in cells if cell.budget == budget]
        start = next((cell for cell in at if cell.kind == START), at[0])
        firsts = {cell.arm: cell for cell in reversed(at)}
        for cell in at:
            where = f"{folder}: {cell.arm} at {budget}, seed {cell.seed}"
            if len(cell.test_hits) != len(start.test_hits):
                raise ArtifactError(
                    f"{where}: test_hits: {len(cell.test_hits)}; allowed: {len(start.test_hits)}, "
                    f"as of {start.arm}"
                )
            for key in _RETAINED:
                wanted = _asked(start, key) or _asked(firsts[cell.arm], key)
                if _asked(cell, key) != wanted:
                    names = ", ".join(f"{name} ({count})" for name, count in wanted.items())
                    raise ArtifactError(f"{where}: {key}: not of {names or 'nothing'}; {_AGAIN}")


def _asked(cell: "Cell", key: str) -> dict[str, int]:
    """Names of what is retained, with how many queries each has."""
    found: Mapping[str, Any] = getattr(cell, key)
    return {
        name: len(value) if isinstance(value, str | list) else 0
        for name, value in sorted(found.items())
    }
