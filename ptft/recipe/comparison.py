"""The schema of a comparison: a recipe of the target domain, and what is to be held against what.

Every arm is a recipe of its own, made from the comparison's by the changes that its kind stands
for, then by its ``set``.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from ptft.errors import suggest
from ptft.recipe.data import has_many_labels, has_split
from ptft.recipe.evaluation import EvaluateItem, metrics_of
from ptft.recipe.objective import ClassifyObjective, SelfSupervisedObjective
from ptft.recipe.schema import Recipe
from ptft.recipe.section import LONGEST_NAME, Section

__all__ = [
    "BUILT",
    "UNLABELLED",
    "ArmKind",
    "ArmSection",
    "CompareSection",
    "Comparison",
    "SearchRange",
    "can_be_base",
    "of_one_class",
    "per_class",
]

ArmKind = Literal[
    "zero_shot",
    "scratch",
    "probe",
    "full",
    "lp_ft",
    "flyp",
    "lora",
    "dora",
    "prefix",
    "bottleneck",
    "l2_sp",
    "projection",
    "tip_adapter",
    "replay",
    "soup",
    "self_train",
    "adapt_unlabelled",
]


class SearchRange(Section):
    """Where a trial may set a number: evenly between two, or evenly in its logarithm."""

    low: float
    """The least value that a trial may take."""
    high: float
    """The largest."""
    log: bool = True
    """Whether values are spread evenly in their logarithm."""

    @model_validator(mode="after")
    def _ordered(self) -> "SearchRange":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"low {self.low}, high {self.high}: allowed is low < high, above 0 where log"
            )
        return self


_DECIDED = frozenset(("compare", "data", "early_stop", "evaluate", "name", "run", "seed"))
_OWN_DATA = frozenset(("data.captions", "data.resample"))  # how an arm reads the same labels


class ArmSection(Section):
    """One way to get a model for the target domain."""

    kind: ArmKind
    """The way."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$", max_length=LONGEST_NAME)
    """Absent: the kind."""
    set: dict[str, Any] = {}
    """Dotted keys of the recipe and their values in this arm: ``{adapt.rank: 4}``."""
    search: dict[str, SearchRange | Annotated[list[Any], Field(min_length=1)]] | None = None
    """Dotted keys and what trials may set them to; absent: a learning rate from a third to three
    times that of ``set`` or of the recipe. The first trial is always the arm as it stands."""

    @property
    def label(self) -> str:
        """The name that tables have."""
        return self.name or self.kind

    @model_validator(mode="after")
    def _learns_what_all_learn(self) -> "ArmSection":
        for key in (*self.set, *(self.search or {})):
            section = key.partition(".")[0]
            if section in _DECIDED and key not in _OWN_DATA:
                raise ValueError(
                    f"{self.label}: {key}: the comparison decides it for all arms alike; allowed: "
                    f"keys beside {', '.join(sorted(_DECIDED))}, and {', '.join(sorted(_OWN_DATA))}"
                )
        return self


UNLABELLED: tuple[ArmKind, ...] = ("self_train", "adapt_unlabelled")
"""Kinds that learn from pictures without labels, beside what the best labelled arm does."""

BUILT: tuple[ArmKind, ...] = ("soup", *UNLABELLED)
"""Kinds that build on the best labelled arm, with what was chosen for it, and wait for it."""


def can_be_base(kind: ArmKind) -> bool:
    """Whether an arm of the ``BUILT`` kinds can build on one of a kind."""
    return kind not in (
        "zero_shot",
        "scratch",
        "flyp",
        "tip_adapter",
        "projection",
        "replay",
        *BUILT,
    )


def _arms() -> list[ArmSection]:
    kinds: tuple[ArmKind, ...] = ("zero_shot", "scratch", "probe", "full", "lora", "l2_sp")
    thin = ArmSection(kind="lora", name="lora_r2", set={"adapt.rank": 2, "adapt.alpha": 4})
    return [*(ArmSection(kind=kind) for kind in kinds), thin]


def _learnable(item: Any) -> bool:
    """Whether the plain values of a retained evaluation have a side to learn from."""
    data = item.get("data") if isinstance(item, dict) else None
    return isinstance(data, dict) and (
        data.get("kind") == "scenes" or data.get("train") is not None
    )


def _paired(objective: Any) -> bool:
    """Whether what an objective reads can be learned as pictures with captions."""
    if not isinstance(objective, dict) or objective.get("kind") == "detect":
        return False
    return bool(objective.get("reads", "image") == "image")


class CompareSection(Section):
    """Arms x label budgets x seeds, and what is asked of the winner."""

    arms: list[ArmSection] = Field(default_factory=_arms, min_length=1)
    wise: list[Annotated[float, Field(gt=0.0, lt=1.0)]] = [0.25, 0.5, 0.75]
    """Shares of the trained weights at which each trained arm is mixed with the weights that it
    started from (WiSE-FT, Wortsman et al. 2022); each costs at most one evaluation. Empty: no
    mixing."""
    budgets: list[PositiveInt] = Field(default=[64, 256, 1024], min_length=1)
    """Labelled samples that an arm may learn from; smaller ones are parts of larger ones."""
    seeds: int = Field(default=3, ge=1, le=64)
    """Each draws its own labels, order and (where there are any) random weights."""
    trials: int = Field(default=3, ge=1)
    """Trainings per arm and budget that hyperparameters are chosen from, on the first seed; the
    same for every arm that learns."""
    prune_at: list[Annotated[float, Field(gt=0.0, lt=1.0)]] = [0.33, 0.67]
    """Shares of its steps at which a trial is given up if validation likes its best so far less
    than the median of the finished trials at that point; one that retains too little is liked less
    than any that retains enough. Empty: every trial takes all its steps."""
    metric: str | None = None
    """Of the target's evaluation; absent: ``top1`` (``all_first`` where ``data.labels`` is
    ``many``), ``i2t_recall@k`` of its smallest k, or ``map`` of boxes (``ap50`` and ``ap75`` are
    the others)."""
    samples_per_label: float = Field(default=20.0, gt=0.0)
    """Length of training in passes over a budget's samples, at most the recipe's own length."""
    val_most: int = Field(default=512, ge=1)
    """Samples of ``val``, at most, that arms are told from each other by, the same at every budget.
    What is chosen while an arm is trained (a rate, a share of a mix) goes by no more of them than
    the budget has labels."""
    retain: list[EvaluateItem] = []
    """Evaluations of what is not to be forgotten: ``val`` of each to choose, ``test`` to tell. Of a
    retrieval recall at its smallest k counts, of pictures by texts and of texts by pictures."""
    retention: float = Field(default=0.98, gt=0.0, le=1.0)
    """Least mean share of the starting model's figures on ``retain`` that a winner keeps."""
    retention_probability: float = Field(default=0.35, gt=0.0, lt=1.0)
    """Least probability, by what validation says, with which a winner keeps that share."""
    unlabelled_passes: float = Field(default=4.0, gt=0.0)
    """Of the ``adapt_unlabelled`` arm over ``data.unlabelled``, in two views each, before it sees a
    label; it is done once for all budgets and seeds."""
    soup: int = Field(default=3, ge=2, le=16)
    """Trainings of which a ``soup`` arm is the mean, all on the cell's own labels, each in an order
    (and with random weights, where there are any) of its own."""
    ask_train: list[str] = []
    """Names of the sets in ``retain`` whose ``train`` the start did not learn from: it is asked
    beside ``val``, since more questions tell better what is kept. No arm may replay them. A start
    that is a run is held against its record."""
    replay: float = Field(default=1.0, gt=0.0)
    """Retained samples that the ``replay`` arms see for each of the target's."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Of the bands and of the paired bootstrap intervals."""
    margin: float = Field(default=0.01, ge=0.0, lt=1.0)
    """Arms that are expected to be lower than the recommended one by no more than this, where the
    interval of the difference includes none, are said to be as good."""
    jobs: int = Field(default=2, ge=1)
    """Processes, of one thread each; they change no figure."""

    @model_validator(mode="after")
    def _distinct(self) -> "CompareSection":
        labels = [arm.label for arm in self.arms]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"arms: two are named {', '.join(twice)}; give each a name")
        names = [item.name or item.kind for item in self.retain]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"retain: two are named {', '.join(twice)}; give each a name")
        if sorted(set(self.budgets)) != self.budgets:
            raise ValueError(f"budgets {self.budgets}: allowed: ascending, each once")
        return self

    @model_validator(mode="after")
    def _asks_what_no_arm_learns(self) -> "CompareSection":
        sets = {item.label: item for item in self.retain}
        for name in self.ask_train:
            item = sets.get(name)
            if item is None:
                raise ValueError(f"ask_train: {name!r} is not in retain; {suggest(name, sets)}")
            if item.data is None or not has_split(item.data, "train"):
                raise ValueError(f"ask_train: {name!r}: retain.{name}.data has no train")
        replays = [arm.label for arm in self.arms if arm.kind == "replay"]
        if self.ask_train and replays:
            raise ValueError(
                f"ask_train: {self.ask_train[0]!r}: the arm {replays[0]!r} learns from it; "
                "allowed: one of the two"
            )
        return self


def per_class(recipe: Recipe) -> bool:
    """Whether a budget of labels is one of each class: not where a sample may have several, which
    would be a label of each."""
    return isinstance(recipe.objective, ClassifyObjective) and not has_many_labels(recipe.data)


def of_one_class(recipe: Recipe) -> bool:
    """Whether the target's questions are of one class of several."""
    return metrics_of(recipe.evaluate[0], recipe.data) == ["top1"]


class Comparison(Recipe):
    """A recipe with a ``compare`` section. The first item of ``evaluate`` is the target."""

    compare: CompareSection = Field(default_factory=CompareSection)

    @model_validator(mode="after")
    def _head_for_all(self) -> "Comparison":
        if isinstance(self.objective, SelfSupervisedObjective):
            raise ValueError(
                f"objective.kind: {self.objective.kind!r} is not compared yet; allowed: clip, "
                "siglip, classify, detect"
            )
        if isinstance(self.objective, ClassifyObjective) and self.objective.head == "probe":
            raise ValueError(
                "objective.head: 'probe' would begin every arm with a probe, as lp_ft does; "
                "allowed: prompts, random"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _reads_what_is_there(cls, values: Any) -> Any:
        """Where no arms are named, those join that read what the recipe has beside labels."""
        if not isinstance(values, dict):
            return values
        section = values.get("compare") or {}
        data, objective = values.get("data"), values.get("objective") or {}
        if not isinstance(section, dict) or not isinstance(data, dict) or "arms" in section:
            return values
        more: list[ArmKind] = []
        items = section.get("retain") or []
        learnable = items and all(_learnable(item) for item in items)
        if learnable and not section.get("ask_train") and _paired(objective):
            more.append("replay")
        if data.get("unlabelled") is not None and _paired(objective):
            one_label = isinstance(objective, dict) and objective.get("kind") == "classify"
            more += [kind for kind in UNLABELLED if one_label or kind != "self_train"]
        if not more:
            return values
        arms = [arm.model_dump() for arm in _arms()] + [{"kind": one} for one in more]
        return {**values, "compare": {**section, "arms": arms}}

    @model_validator(mode="after")
    def _reads_unlabelled(self) -> "Comparison":
        """Arms read ``data.unlabelled`` here, in place of a self_train section."""
        if self.self_train is not None:
            raise ValueError("self_train: of ptft train; allowed: null, and an arm of that kind")
        arms = [arm for arm in self.compare.arms if arm.kind in UNLABELLED]
        given = getattr(self.data, "unlabelled", None)
        if given is not None and not arms:
            raise ValueError(
                "data.unlabelled: no arm reads it; allowed: null, or arms of the kinds "
                f"{', '.join(UNLABELLED)}"
            )
        if given is None and arms:
            raise ValueError(f"compare.arms.{arms[0].label}: data.unlabelled is missing")
        return self

    @model_validator(mode="after")
    def _builds_on_something(self) -> "Comparison":
        built = [arm for arm in self.compare.arms if arm.kind in BUILT]
        if built and not any(can_be_base(arm.kind) for arm in self.compare.arms):
            raise ValueError(
                f"compare.arms.{built[0].label}: no arm beside it that learns from labels by "
                "steps, which it builds on; allowed: probe, full and others with it"
            )
        return self

    @model_validator(mode="after")
    def _draws_itself(self) -> "Comparison":
        if (drawn_by := getattr(self.data, "draw_seed", None)) is not None:
            raise ValueError(
                f"data.draw_seed: {drawn_by}: each seed of a comparison draws its own labels; "
                "allowed: null"
            )
        return self

    @model_validator(mode="after")
    def _is_no_run(self) -> "Comparison":
        if (minutes := self.run.max_minutes) is not None:
            raise ValueError(
                f"run.max_minutes: {minutes!r}: of ptft train; allowed: null; "
                "ptft compare --max-minutes starts nothing after so many"
            )
        return self

    @model_validator(mode="after")
    def _has_target(self) -> "Comparison":
        if not self.evaluate:
            raise ValueError("evaluate: empty; its first item is what the arms are compared by")
        kinds = (self.objective.kind == "detect", self.evaluate[0].kind == "detect")
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"evaluate.0.kind: {self.evaluate[0].kind!r} with objective.kind "
                f"{self.objective.kind!r}; allowed: 'detect' with 'detect', and with nothing else"
            )
        if (
            self.init is None
            and not self.starts_trained
            and any(arm.kind != "scratch" for arm in self.compare.arms)
        ):
            raise ValueError(
                "init.from: missing; all arms but scratch start from pretrained weights "
                "(init.from, model.pretrained or model.image_weights)"
            )
        return self
