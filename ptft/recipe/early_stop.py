"""The early_stop section of a recipe."""

from pydantic import Field, PositiveInt, model_validator

from ptft.recipe.evaluation import EvaluateItem
from ptft.recipe.section import Section

__all__ = ["EarlyStopSection"]


class EarlyStopSection(Section):
    """Look at the model as it learns, leave the best one seen, and stop once none is better.

    The target is an item of ``evaluate`` that reads ``val``. Of the models that keep ``retention``
    of the start's figures on ``retain``, the one with the highest target is the best; the start is
    one of them, so a run that can only forget leaves the model that it began with. Test splits are
    never looked at.
    """

    target: str | None = None
    """Name (or kind) of the item of ``evaluate``; absent: the first that reads ``val`` of the
    recipe's own data."""
    metric: str | None = None
    """Of the target; absent: ``top1`` (``map`` where ``data.labels`` is ``many``), or
    ``i2t_recall@k`` of its smallest k."""
    every: PositiveInt | None = None
    """Steps between looks; absent: a tenth of the run. The last step always has one."""
    patience: int = Field(default=4, ge=1)
    """Looks in a row without a better model, after which the run ends."""
    retain: list[EvaluateItem] = []
    """Evaluations, with data of their own, of what is not to be forgotten: on ``val`` of each,
    before the first step and at every look, by the first metric of their kind."""
    retention: float = Field(default=0.98, gt=0.0, le=1.0)
    """Least mean share of the start's figures on ``retain`` that a model keeps to be the best."""

    @model_validator(mode="after")
    def _told_apart(self) -> "EarlyStopSection":
        names = [item.label for item in self.retain]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"retain: two are named {', '.join(twice)}; give each a name")
        for item in self.retain:
            if item.data is None:
                raise ValueError(f"retain: {item.label} has no data; what is to be retained?")
        return self
