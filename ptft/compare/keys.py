"""What decides a cell: its name holds a digest of that, so that a comparison can grow.

Of a finished comparison a seed, a budget, an arm or a trial can be added, and what is there already
stays: a cell is found by its arm, budget and seed, and by what its arm's models learn and are
chosen by. What the others of the comparison do decides nothing of it, nor does how a choice among
cells is made.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ptft.compare.arms import MIXES, STEPLESS, search_space
from ptft.recipe import ArmSection, Comparison, deciding_values
from ptft.recipe.comparison import BUILT, can_be_base, of_one_class

__all__ = ["CellKey", "Keys", "base_values"]

_DIGITS = 10


@dataclass(frozen=True)
class CellKey:
    """What decides the cells of an arm at a budget.

    Attributes:
        learned: digest of all that decides what its models learn, but for the number of trials.
        trials: that its hyperparameters are chosen from.
    """

    learned: str
    trials: int

    @property
    def name(self) -> str:
        """What stands in names of files."""
        return _digest([self.learned, self.trials])[:_DIGITS]


class Keys:
    """The keys of a comparison, each made once."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._known: dict[tuple[str, int], CellKey] = {}

    @cached_property
    def _base(self) -> dict[str, Any]:
        return base_values(self._comparison)

    @cached_property
    def _answers(self) -> int:
        """How the answers are read that a cell holds: of the target by margins (3, and 5 with a
        retrieval), or any of a retrieval by ranks (4); all were right or wrong once (1), and ranks
        moved where there were as many candidates (2, and 3 with a retrieval)."""
        items = [*self._base["evaluate"], *self._base["retain"]]
        retrieval = any(item["kind"] == "retrieval" for item in items)
        if of_one_class(self._comparison):
            return 5 if retrieval else 3
        return 4 if retrieval else 1

    def of(self, arm: ArmSection, budget: int) -> CellKey:
        """The key of an arm at a budget."""
        if (arm.label, budget) not in self._known:
            section = self._comparison.compare
            decides = {
                "base": self._base,
                "arm": {**arm.model_dump(mode="json"), "name": arm.label},
                "budget": budget,
                "samples_per_label": section.samples_per_label,
                "val_most": section.val_most,
                "questions": 2,  # the same at every budget: each had its own once
                "prune_at": section.prune_at if _searches(self._comparison, arm) else [],
                "wise": section.wise if arm.kind in MIXES else [],
                "retention": section.retention if section.retain else None,
                "retention_probability": section.retention_probability if section.retain else None,
                "replay": section.replay if arm.kind == "replay" else None,
            }
            if arm.kind in BUILT:
                decides["soup" if arm.kind == "soup" else "unlabelled"] = self._below(arm, budget)
            if arm.kind in ("probe", "projection") and "head" in self._base["objective"]:
                decides["way"] = 2  # a probe is held to its texts, a projection solved: not before
            if self._answers > 1:
                decides["answers"] = self._answers
            trials = section.trials if _searches(self._comparison, arm) else 1
            self._known[arm.label, budget] = CellKey(_digest(decides), trials)
        return self._known[arm.label, budget]

    def _below(self, arm: ArmSection, budget: int) -> dict[str, Any]:
        """What decides a cell beside its arm: the arms that it may build on, and the pictures."""
        section = self._comparison.compare
        bases = [self.of(one, budget) for one in section.arms if can_be_base(one.kind)]
        found: dict[str, Any] = {
            "bases": [[one.learned, one.trials] for one in bases],
            "seeds": section.seeds,
        }
        if arm.kind == "soup":
            return {**found, "trainings": section.soup}
        found["pictures"] = deciding_values(self._comparison)["data"].get("unlabelled")
        if arm.kind == "adapt_unlabelled":
            found["passes"] = section.unlabelled_passes
        return found


def base_values(comparison: Comparison) -> dict[str, Any]:
    """What all cells of a comparison have in common: the recipe of the target domain, and what is
    measured. With other values it is another comparison."""
    values = deciding_values(comparison)
    section = values.pop("compare")
    del values["name"]
    values["data"].pop("unlabelled", None)  # of some arms alone
    values["evaluate"] = values["evaluate"][:1]  # the target
    if section["ask_train"]:
        values["ask_train"] = sorted(section["ask_train"])
    return {**values, "metric": section["metric"], "retain": section["retain"]}


def _searches(comparison: Comparison, arm: ArmSection) -> bool:
    return arm.kind not in STEPLESS and bool(search_space(comparison, arm))


def _digest(values: dict[str, Any] | Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
