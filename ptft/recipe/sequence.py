"""The schema of a sequence: a recipe whose stages each go on from the model of the one before."""

from typing import Any

from pydantic import Field, model_validator

from ptft.recipe.data import DataSection, PartData
from ptft.recipe.evaluation import EvaluateItem, RetrievalEvaluation, metrics_of
from ptft.recipe.objective import ClassifyObjective
from ptft.recipe.schema import Recipe
from ptft.recipe.section import LONGEST_NAME, Section

__all__ = ["GuardSection", "StageSection", "StagedRecipe"]


class GuardSection(Section):
    """What each stage does so as not to forget what came before it.

    Replay alone is the default. From colour to black and white emoji (one seed, recall@10) it
    learned more than plain fine-tuning (24.0 % against 16.6 %) and cost styles not seen yet 4.3
    points against 15.6; a teacher or mixing beside it kept 0.5 to 2.8 points more, and learned 8 to
    14 points less. 0 (1 for ``mix``) switches a part off, ``guard: null`` all: plain fine-tuning.
    """

    replay: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Share of a stage's draws that come from earlier sets, evenly: the training sets of the stages
    before it and ``known``. The stage is longer for it, so that its own samples are seen as often
    as they are without."""
    known: list[PartData] = []
    """Training sets of what the start knows already (the pretraining's): replayed in every stage,
    the first included."""
    mix: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the trained weights in a stage's model, the rest being those that it started from
    (WiSE-FT, Wortsman et al. 2022)."""
    distill: float = Field(default=0.0, ge=0.0)
    """Weight of what the stage's start answers to the same batches (ZSCL, Zheng et al. 2023, there
    on a set of its own; LwF, Li & Hoiem 2016)."""
    pull: float = Field(default=0.0, ge=0.0)
    """Strength of the pull to the stage's start (``regularise.start``)."""


class StageSection(Section):
    """One domain: what the stage learns from, and by what figure it is told."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=LONGEST_NAME)
    """Of the domain; the stage's run and its column of the table."""
    data: DataSection
    evaluate: EvaluateItem = Field(default_factory=RetrievalEvaluation)
    """The domain's figure, measured before the first stage and after each; absent data: the
    stage's. Its name is the stage's."""
    set: dict[str, Any] = {}
    """Dotted keys of the recipe and their values in this stage: ``{optim.lr: 1e-4}``."""


class StagedRecipe(Recipe):
    """A recipe with ``stages``; what it says holds for each of them.

    ``evaluate`` names what is measured besides the stages' own domains: what the start knew, say.
    """

    stages: list[StageSection] = Field(min_length=1)
    guard: GuardSection | None = Field(default_factory=GuardSection)
    """Against forgetting; null: plain fine-tuning, one stage after another."""
    metric: str | None = None
    """Of the table; absent: each evaluation's first."""

    @model_validator(mode="before")
    @classmethod
    def _first_data(cls, values: Any) -> Any:
        """A sequence has the data of its first stage where it has none of its own."""
        if isinstance(values, dict) and values.get("data") is None:
            stages = values.get("stages")
            first = stages[0] if isinstance(stages, list) and stages else None
            if isinstance(first, dict) and first.get("data") is not None:
                return {**values, "data": first["data"]}
        return values

    @model_validator(mode="after")
    def _told_apart(self) -> "StagedRecipe":
        names = [item.label for item in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"stages: two are named {', '.join(twice)}; give each stage, and each item of "
                "evaluate, a name of its own"
            )
        if isinstance(self.objective, ClassifyObjective):
            raise ValueError(
                "stages: with objective.kind 'classify', whose head ends with its stage; allowed: "
                "clip, siglip (classes are learned by objective.templates)"
            )
        for item in self.columns:
            known = metrics_of(item, self.data)
            if self.metric is not None and self.metric not in known:
                raise ValueError(
                    f"metric: {self.metric!r}: not of {item.label}; allowed: {', '.join(known)}"
                )
        return self

    @property
    def columns(self) -> list[EvaluateItem]:
        """All that is measured after each stage: the stages' domains in order, then the rest."""
        own = [
            stage.evaluate.model_copy(
                update={"name": stage.name, "data": stage.evaluate.data or stage.data}
            )
            for stage in self.stages
        ]
        return [*own, *self.evaluate]

    def metric_of(self, item: EvaluateItem) -> str:
        """The figure of a column that the table shows."""
        return self.metric or metrics_of(item, self.data)[0]
