"""Early stopping: the best model that a run has validated, and when going on is of no more use.

A validation measures the target and what is to be retained on their validation splits: before the
first step, every so many steps, and after the last. What it decides is a function of the weights,
so a run that is resumed decides the same; the best weights and all that is known of them lie in the
checkpoint.
"""

from typing import TypedDict

from torch import nn

from ptft.evaluate import Figures
from ptft.recipe import DataSection, EarlyStopSection, EvaluateItem, Recipe, metrics_of
from ptft.train.state.weight_copy import WeightCopy

__all__ = ["Best", "BestState", "keep_best"]

_PREFIX = "best/"  # of the names in a checkpoint


class BestState(TypedDict, total=False):
    """What a checkpoint and ``run.json`` keep of a :class:`Best`; empty before any validation.

    ``start`` and ``retained_start`` are the figures before the first step; ``looked`` is the step
    of the newest validation; ``step``, ``target`` and ``share`` are of the best one: after which
    step, the target's figure, and the share of ``retained_start`` that it keeps; ``since`` counts
    the validations after it.
    """

    start: float
    retained_start: dict[str, float]
    looked: int
    step: int
    target: float
    share: float
    since: int


class Best(WeightCopy):
    """The weights of the best validation, and the rule by which it is the best.

    Args:
        model: what learns.
        section: the recipe's.
        target: the item of ``evaluate`` that it means.
        data: of the recipe, for a target without its own.
        steps: of the whole run.
        state: from a checkpoint, where the run goes on.

    Attributes:
        state: for the next checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        section: EarlyStopSection,
        target: EvaluateItem,
        data: DataSection,
        steps: int,
        state: BestState | None = None,
    ) -> None:
        super().__init__(model, _PREFIX)
        self.section = section
        self.target = target
        self.metric = section.metric or metrics_of(target, data)[0]
        self._data = data
        self.every = section.every or max(1, steps // 10)
        self.state: BestState = state or {}
        self.items: list[EvaluateItem] = [
            target,
            *(item.model_copy(update={"split": "val"}) for item in section.retain),
        ]

    @property
    def over(self) -> bool:
        """Whether the last ``patience`` validations found nothing better."""
        return self.state.get("since", 0) >= self.section.patience

    def is_due(self, step: int, *, last: bool) -> bool:
        """Whether a validation belongs after ``step`` and was not made; the start's is made at
        once."""
        wanted = last or step % self.every == 0
        return wanted and step > 0 and step != self.state.get("looked") and not self.over

    def compare(self, step: int, figures: dict[str, Figures]) -> bool:
        """Note what the validation after ``step`` found; whether that model is the best so far.

        The first validation is the start's. A model that does not keep enough of the start's
        figures is never the best, and of equals the earlier one is.

        Args:
            figures: of ``items``, by their names.
        """
        target = float(figures[self.target.label][self.metric])
        kept = {
            item.label: float(figures[item.label][metrics_of(item, self._data)[0]])
            for item in self.items[1:]
        }
        state: BestState = {"start": target, "retained_start": kept, **self.state}
        state["looked"] = step
        share = _mean_share(kept, state["retained_start"])
        better = share >= self.section.retention and target > state.get("target", float("-inf"))
        if better:
            state |= {"step": step, "target": target, "share": share, "since": 0}
        else:
            state["since"] += 1
        self.state = state
        return better

    def __str__(self) -> str:
        state = self.state
        kept = f", {state['share']:.1%} retained" if self.section.retain else ""
        return (
            f"the model of step {state['step']:,} is the best that was looked at: "
            f"{self.target.label} {self.metric} {state['target']:.1%} "
            f"({state['start']:.1%} at the start){kept}"
        )


def keep_best(recipe: Recipe, model: nn.Module, total: int) -> Best:
    """What a recipe that may stop early asks for by ``early_stop``.

    Args:
        model: at the start, and sharded if it is to be.
        total: samples of the whole run.
    """
    section, target = recipe.stops_early, recipe.early_stop_target
    assert section is not None and target is not None, "others take all their steps"
    return Best(model, section, target, recipe.data, -(-total // recipe.optim.global_batch))


def _mean_share(figures: dict[str, float], start: dict[str, float]) -> float:
    """Mean of the figures as shares of the start's; what was nothing cannot be lost."""
    shares = [figures[name] / start[name] if start[name] else 1.0 for name in figures]
    return sum(shares) / len(shares) if shares else 1.0
