"""The schema of a recipe. It holds every default; a recipe holds only differences."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from ptft.errors import suggest
from ptft.recipe.adapt import Adapter, ProjectionAdapt, TipAdapterAdapt
from ptft.recipe.data import DataSection, has_pictures
from ptft.recipe.distill import DistillSection
from ptft.recipe.early_stop import EarlyStopSection
from ptft.recipe.evaluation import (
    EvaluateItem,
    ProbeEvaluation,
    RetrievalEvaluation,
    ZeroShotEvaluation,
    metrics_of,
)
from ptft.recipe.labels import SelfTrainSection, check_several, unlabelled_problem, views_problem
from ptft.recipe.model import ArchModel, ModelSection
from ptft.recipe.objective import ClipObjective, ObjectiveSection, doubles_problem, read_towers
from ptft.recipe.optim import OptimSection
from ptft.recipe.paths import is_url
from ptft.recipe.regularise import RegulariseSection
from ptft.recipe.section import LONGEST_NAME, Section

__all__ = [
    "AdaptSection",
    "AugmentSection",
    "FullAdapt",
    "InitSection",
    "ProbeAdapt",
    "Recipe",
    "RunSection",
]


class InitSection(Section):
    """Start from the model of an artefact: its architecture, preprocessing and weights."""

    from_: str = Field(alias="from")
    """A run folder, a model folder, or ``org/repo@revision`` on the Hub."""
    weights: bool = True
    """False: the architecture, tokenizer and preprocessing alone, with random weights."""


class FullAdapt(Section):
    """Every weight learns, but for the towers that are locked."""

    kind: Literal["full"] = "full"
    lock: list[Literal["image", "text"]] = []
    """Towers that stay as they are and run in eval mode; their projections learn. A locked
    pretrained image tower under a new text tower is LiT (Zhai et al. 2022)."""
    freeze_norm: bool = False
    """Keep batch norms in eval mode, their statistics as they are: for small batches, and for
    weights whose batch norms were folded into the convolutions."""


class ProbeAdapt(Section):
    """Only the head learns (``classify``), or only the projections (``clip``, ``siglip``)."""

    kind: Literal["probe"] = "probe"


AdaptSection = Annotated[
    FullAdapt | ProbeAdapt | TipAdapterAdapt | Adapter, Field(discriminator="kind")
]


class AugmentSection(Section):
    """What training does to a picture before it is normalised.

    Random crops are decoded and resized by a faster way than evaluation's, within a tenth of a grey
    level (of 255) of it on average, and the same on every run."""

    crop_scale: tuple[float, float] = (0.9, 1.0)
    """Range of the area share of a random crop; (1, 1): the evaluation transform."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's aspect ratio."""
    flip: bool = False
    """Mirror half of the pictures. Off, since captions speak of left and right."""
    colour_jitter: float = Field(default=0.0, ge=0.0, le=1.0)
    """Largest relative change of brightness, contrast and saturation."""
    patch_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of an image's patches that a vision transformer does not see in training (FLIP: 0.5 to
    0.75 of a large model's); evaluation sees all."""

    @model_validator(mode="after")
    def _ordered(self) -> "AugmentSection":
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale {self.crop_scale}: allowed is 0 < low <= high <= 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio {self.crop_ratio}: allowed is 0 < low <= high")
        return self


class RunSection(Section):
    """Where a run lies, how often it saves and reports, and on what it runs."""

    dir: str | None = None
    """The run folder. Absent: ``runs/<name>``, numbered when that one exists."""
    mirror: str | None = None
    """Where checkpoints, records and curves are copied to as the run goes on, so that it outlives
    the machine: an address of fsspec (``s3://bucket/runs/x``) or a mounted path, of this run alone.
    ``--resume auto`` on an empty disk takes the newest whole copy. Credentials come from the
    environment. With it ``run.dir``, where absent, is ``runs/<name>``."""
    mirror_max_age_minutes: float = Field(default=60.0, gt=0.0)
    """A run ends with an error once a checkpoint waits so long to be mirrored; failed copies are
    tried again until then."""
    mirror_grace_seconds: float = Field(default=60.0, ge=0.0)
    """How long a run that was stopped waits for its last checkpoint to be mirrored. A finished one
    waits for its model as long as ``mirror_max_age_minutes``."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: a CUDA GPU where there is one, else the CPU."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: every rank keeps all weights, or a part of each (FSDP2) with its gradient and
    optimiser state. The numbers are the same."""
    threads: int | None = Field(default=None, ge=1)
    """Of torch on the CPU; absent: torch's own choice."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of each transformer block: ``auto`` on CUDA, for runs of 1,000 steps and more;
    ``on`` wherever there is a compiler."""
    workers: NonNegativeInt | Literal["auto"] = "auto"
    """Processes that load data; 0: none. Results do not depend on it."""
    features: Literal["auto", "on", "off"] = "auto"
    """Keep the features of locked towers on disk and read them in place of running the towers.
    ``auto``: where that is exact (``augment`` leaves nothing to chance) and the run sees samples
    more than once, or they are there already; ``on``: refused where it is not exact."""
    cache: str | None = None
    """The folder of kept features. Absent: ``ptft/features`` in the platform's cache folder."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints, which are written while the steps go on; the last step always has
    one."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept; older ones are deleted once a newer one is complete."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; absent: only after the last step."""
    evaluate_mb: int = Field(default=256, ge=1)
    """MiB that an evaluation's scores take at most, beside the embeddings: they are computed by
    blocks of so many. No figure depends on it, but for the rounding of products of matrices."""
    max_minutes: float | None = Field(default=None, gt=0.0)
    """Minutes after which a limit outside ends the process: the run stops in good time before that,
    with a checkpoint and exit code 75, and ``--resume`` goes on. Counted from where ``ptft train``
    begins, over all stages."""
    lost_after_seconds: float = Field(default=120.0, ge=1.0)
    """Of several machines: one that answers nothing for so long is gone, and the ranks on the
    others end with exit code 76. A rank that is busy, as the first is with an evaluation, is not
    gone: its machine answers."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of metrics."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = ["tensorboard"]
    """Where figures go beside the run folder. trackio stays on this machine."""
    page: bool = True
    """Whether people get pictures of the run: its page, and its curves at the end."""
    neighbours: bool = True
    """Whether the run's page shows what the model finds nearest before and after training. It then
    holds small copies of pictures of the evaluated set."""

    @field_validator("dir", "cache")
    @classmethod
    def _is_local(cls, given: str | None) -> str | None:
        if given is not None and is_url(given):  # it would be a folder called "s3:"
            raise ValueError(f"{given!r}: an address; allowed: a local path")
        return given

    @field_validator("mirror")
    @classmethod
    def _is_a_store(cls, given: str | None) -> str | None:
        if given is not None:
            protocol = given.partition("://")[0].lower() if is_url(given) else ""
            if not given.strip() or "::" in given or protocol in ("http", "https", "ftp"):
                raise ValueError(
                    f"{given!r}: nothing is written there; allowed: a mounted path, or s3://, "
                    "gs://, hf://buckets/ or another store of fsspec"
                )
        return given


def _locks_image(adapt: AdaptSection) -> bool:
    if isinstance(adapt, FullAdapt):
        return "image" in adapt.lock
    if isinstance(adapt, ProbeAdapt | ProjectionAdapt | TipAdapterAdapt):
        return True
    return "image" not in adapt.towers


class Recipe(Section):
    """A whole run: model, data, objective, what learns, how long, and how it is judged."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=LONGEST_NAME)
    """Of the run and, unless told otherwise, of the model."""
    seed: int = Field(default=0, ge=0)
    """Weights, order of samples, augmentation: all of them."""
    model: ModelSection | None = None
    init: InitSection | None = None
    data: DataSection
    objective: ObjectiveSection = Field(default_factory=ClipObjective)
    distill: DistillSection | None = None
    self_train: SelfTrainSection | None = None
    adapt: AdaptSection = Field(default_factory=FullAdapt)
    regularise: RegulariseSection | None = None
    early_stop: EarlyStopSection | Literal["auto"] | None = "auto"
    """Leave the best model that was looked at. ``auto``: with the section's defaults, where a run
    starts from trained weights and an item of ``evaluate`` reads ``val`` of the recipe's own data;
    null: never."""
    augment: AugmentSection = Field(default_factory=AugmentSection)
    optim: OptimSection
    evaluate: list[EvaluateItem] = []
    run: RunSection = Field(default_factory=RunSection)

    @model_validator(mode="after")
    def _has_pictures(self) -> "Recipe":
        """Pictures where they are read; of ``classify`` the model says what it reads."""
        objective = self.objective
        if "image" in read_towers(objective) and not has_pictures(self.data):
            raise ValueError(
                f"data.image: null with objective.kind {objective.kind!r}, which reads pictures; "
                "allowed: the column of the picture, or classify with reads: text"
            )
        if self.augment.patch_dropout and "image" not in read_towers(objective):
            raise ValueError(
                f"augment.patch_dropout: {self.augment.patch_dropout} with objective.reads 'text', "
                "which reads no picture; allowed: 0"
            )
        for index, item in enumerate(self.evaluate):
            reads = "both" if isinstance(item, RetrievalEvaluation) else "text"
            if isinstance(item, ZeroShotEvaluation | ProbeEvaluation):
                reads = item.reads
            if reads != "text" and not has_pictures(item.data or self.data):
                key = f"evaluate.{index}.data.image" if item.data else "data.image"
                raise ValueError(
                    f"{key}: null, and evaluate.{index} ({item.kind}) reads pictures; allowed: the "
                    "column of the picture, or an evaluation that reads text"
                )
        return self

    @model_validator(mode="after")
    def _has_weights(self) -> "Recipe":
        if (self.model is None) == (self.init is None):
            raise ValueError(
                "give either a model section, or init.from to start from an artefact's model"
            )
        if self.augment.patch_dropout and _locks_image(self.adapt):
            raise ValueError(
                f"augment.patch_dropout: {self.augment.patch_dropout}: a locked image tower sees "
                "all patches; allowed: 0, or an image tower that learns"
            )
        if self.regularise is not None and self.adapt.kind not in ("full", "probe", "projection"):
            raise ValueError(
                f"regularise: with adapt.kind {self.adapt.kind!r}, whose new weights have no start "
                "worth keeping; allowed: full, probe, projection"
            )
        if isinstance(self.adapt, TipAdapterAdapt) and self.objective.kind != "classify":
            raise ValueError(
                f"adapt.kind: 'tip_adapter' with objective.kind {self.objective.kind!r}: it "
                "remembers pictures by their class; allowed: classify"
            )
        if isinstance(self.adapt, TipAdapterAdapt) and "text" in read_towers(self.objective):
            raise ValueError(
                "adapt.kind: 'tip_adapter' remembers pictures alone; allowed: objective.reads: "
                "image, or another adapt.kind"
            )
        if self.distill is not None and not (self.distill.weight or self.distill.features):
            raise ValueError("distill: weight and features are 0; allowed: one above 0, or null")
        if self.distill is not None and self.objective.kind == "detect":
            raise ValueError(
                "distill: with objective.kind 'detect', whose places no teacher answers; allowed: "
                "null"
            )
        if self.distill is not None and self.objective.kind == "classify" and self.distill.features:
            raise ValueError(
                f"distill.features: {self.distill.features} with objective.kind 'classify', which "
                "compares class probabilities; allowed: 0"
            )
        names = [item.label for item in self.evaluate]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"evaluate: two items are named {', '.join(twice)}; give each a name")
        return self

    @model_validator(mode="after")
    def _reads_unlabelled(self) -> "Recipe":
        problem = unlabelled_problem(self) or views_problem(self)
        if problem := problem or doubles_problem(self.objective, self.evaluate):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _one_or_several(self) -> "Recipe":
        check_several(self)
        return self

    @model_validator(mode="after")
    def _balances_once(self) -> "Recipe":
        balanced = getattr(self.objective, "class_weights", None) == "balanced"
        if balanced and getattr(self.data, "resample", "none") == "class":
            raise ValueError(
                "objective.class_weights: 'balanced' with data.resample 'class', which draws rare "
                "classes more often already; allowed: one of them"
            )
        return self

    @model_validator(mode="after")
    def _can_stop(self) -> "Recipe":
        section, target = self.early_stop, self.early_stop_target
        if not isinstance(section, EarlyStopSection):
            return self
        if target is None:
            wanted = f"target {section.target!r} is not" if section.target else "there is not"
            raise ValueError(
                f"early_stop: {wanted} an item of evaluate that reads val; test splits choose "
                "nothing"
            )
        known = metrics_of(target, self.data)
        if section.metric is not None and section.metric not in known:
            hint = suggest(section.metric, known)
            raise ValueError(f"early_stop.metric: {section.metric!r}; {hint}")
        if any(item.label == target.label for item in section.retain):
            raise ValueError(f"early_stop.retain: {target.label} is the target's name, too")
        return self

    @property
    def early_stop_target(self) -> EvaluateItem | None:
        """The item of ``evaluate`` that early stopping goes by, if there is one."""
        section = self.early_stop
        wanted = section.target if isinstance(section, EarlyStopSection) else None
        for item in self.evaluate:
            named = item.data is None if wanted is None else item.label == wanted
            if named and item.split == "val":
                return item
        return None

    @property
    def stops_early(self) -> EarlyStopSection | None:
        """The ``early_stop`` section with ``auto`` made plain; None where all steps are taken."""
        if self.early_stop != "auto":
            return self.early_stop
        on = self.starts_trained and self.early_stop_target is not None
        return EarlyStopSection() if on else None

    @property
    def starts_trained(self) -> bool:
        """Whether the image tower's weights were trained before."""
        if self.init is not None:
            return self.init.weights
        if isinstance(self.model, ArchModel):
            return self.model.pretrained is not None
        return self.model is not None and self.model.image_weights is not None
