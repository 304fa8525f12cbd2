"""The schema of a recipe. It holds every default; a recipe holds only differences."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ptft.errors import suggest
from ptft.recipe.adapt import Adapter, ProjectionAdapt, TipAdapterAdapt
from ptft.recipe.data import DataSection, has_pictures
from ptft.recipe.distill import DistillSection
from ptft.recipe.early_stop import EarlyStopSection
from ptft.recipe.evaluation import (
    EvaluateItem,
    ProbeEvaluation,
    RetrievalEvaluation,
    Template,
    ZeroShotEvaluation,
    metrics_of,
)
from ptft.recipe.model import ArchModel, ModelSection
from ptft.recipe.reads import TOWERS_OF, Reads
from ptft.recipe.regularise import RegulariseSection
from ptft.recipe.section import Section

__all__ = [
    "AdaptSection",
    "AugmentSection",
    "ClassifyObjective",
    "ClipObjective",
    "FullAdapt",
    "InitSection",
    "ObjectiveSection",
    "OptimSection",
    "ProbeAdapt",
    "Recipe",
    "RunSection",
    "SiglipObjective",
    "read_towers",
]


Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class InitSection(Section):
    """Start from the model of an artefact: its architecture, preprocessing and weights."""

    from_: str = Field(alias="from")
    """A run folder, a model folder, or ``org/repo@revision`` on the Hub."""
    weights: bool = True
    """False: the architecture, tokenizer and preprocessing alone, with random weights."""


class ClipObjective(Section):
    """InfoNCE over the batch, both ways (Radford et al. 2021, CLIP)."""

    kind: Literal["clip"] = "clip"
    init_temperature: float = Field(default=0.07, gt=0.0)
    """Softmax temperature at the start, where the model is new; it is learned."""
    max_logit_scale: float = Field(default=100.0, gt=1.0)
    """The learned scale (1/temperature) is clamped to at most this."""
    multi_positive: bool = True
    """Pairs of one caption are positives of each other, not negatives."""
    templates: Annotated[list[Template], Field(min_length=1)] | None = None
    """Captions of training are the sample's class name in these, one drawn each time it is seen, in
    place of the data's own (FLYP, Goyal et al. 2023); ``{}`` is the name. Under ``multi_positive``
    pairs of one class are then positives, whatever their templates."""


class SiglipObjective(Section):
    """Pairwise sigmoid loss with a learned bias (Zhai et al. 2023, SigLIP)."""

    kind: Literal["siglip"] = "siglip"
    init_temperature: float = Field(default=0.1, gt=0.0)
    init_bias: float = -10.0
    max_logit_scale: float = Field(default=100.0, gt=1.0)
    multi_positive: bool = True
    templates: Annotated[list[Template], Field(min_length=1)] | None = None
    """As of ``clip``."""


class ClassifyObjective(Section):
    """Cross-entropy on a head over what is embedded of a sample, one row a class."""

    kind: Literal["classify"] = "classify"
    reads: Reads = "image"
    """The picture; the ``text`` (one of the captions of ``data``, drawn each time a sample is seen;
    the first of them where a model is evaluated); or ``both``, whose head has rows of twice the
    width over the two L2-normalised embeddings, one after the other."""
    head: Literal["prompts", "probe", "random"] = "prompts"
    """Rows start as the text embeddings of the class names in the templates (of ``both``, half of
    it before each embedding, so that the picture's and the text's similarities are averaged); as
    logistic regression on the starting model's embeddings of the training set, fitted as the
    ``probe`` evaluation fits it (LP-FT, Kumar et al. 2022); or at random. A head that ``init.from``
    has for the same classes, reading the same, stays."""
    templates: list[Template] = Field(default=["a photo of a {}."], min_length=1)
    """Prompts; ``{}`` is the class name."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    calibrate: bool = False
    """After training, divide the head's logits by the temperature at which the classes of
    ``data.val`` are likeliest (Guo et al. 2017), so that confidence can be trusted. It changes no
    prediction, and the model that is saved, exported and served has it."""
    max_logit_scale: float = Field(default=100.0, gt=1.0)


ObjectiveSection = Annotated[
    ClipObjective | SiglipObjective | ClassifyObjective, Field(discriminator="kind")
]


def read_towers(objective: ObjectiveSection) -> tuple[Literal["image", "text"], ...]:
    """The towers that an objective reads."""
    return TOWERS_OF[objective.reads if isinstance(objective, ClassifyObjective) else "both"]


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


class OptimSection(Section):
    """Optimiser, warm-up and schedule, counted in samples so that batch sizes compare."""

    optimizer: str = "adamw"
    """``adamw`` is torch's own, fused; any other is timm's of that name (``lion``, ``muon``,
    ``adafactor``, ``lamb``, ``sgd``, ``nadamw``, ...), as timm's factory makes it."""
    optimizer_args: dict[str, bool | int | float | str | list[float]] = Field(default_factory=dict)
    """More keyword arguments of the optimiser (``momentum: 0.95``); not those with a key here."""
    lr: float = Field(default=5e-4, gt=0.0)
    weight_decay: float = Field(default=0.2, ge=0.0)
    """Not applied to norms, biases, position and class embeddings, logit scale and bias."""
    betas: tuple[Beta, Beta] | None = None
    """Absent: CLIP's (0.9, 0.98) for ``adamw``, the optimiser's own otherwise."""
    eps: float | None = Field(default=None, gt=0.0)
    """Absent: CLIP's 1e-6 for ``adamw``, the optimiser's own otherwise."""
    global_batch: int = Field(default=256, ge=1)
    """Samples a step over all ranks."""
    micro_batch: PositiveInt | None = None
    """Samples that a rank forwards at once: memory holds the activations of so many, however large
    the batch, for a second forward pass (GradCache). The gradients are the whole batch's. Divides
    the rank's share of ``global_batch``; absent: all of it at once."""
    samples_seen: int | None = Field(default=None, ge=1)
    """Length of training; this or ``epochs``."""
    epochs: float | None = Field(default=None, gt=0.0)
    """Length of training in passes over the training set."""
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of training over which the learning rate rises from 0."""
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """After the warm-up: half a cosine down; constant, and a straight line down over the
    ``cooldown``; or the same with 1 - sqrt in place of the line (``wsd``, Hägele et al. 2024)."""
    cooldown: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of training at its end over which ``constant`` (absent: 0) and ``wsd`` (absent: 0.2)
    fall. A constant run has no horizon: ``init.from`` one of its checkpoints goes on from it."""
    final_lr: float = Field(default=0.0, ge=0.0, le=1.0)
    """Where the schedule falls to, as a share of the learning rate."""
    clip_grad_norm: float | None = Field(default=1.0, gt=0.0)
    """Largest L2 norm of the gradient; absent: not clipped."""
    stop_above: float | None = Field(default=3.0, gt=0.0)
    """The run stops, its batch named in ``bad_batch.json``, once the loss on average of about the
    last 20 steps lies this many nats above the lowest such average; null: never. Guessing costs
    log(global_batch) nats under ``clip``: give less than the default where batches are small."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto`` measures a forward and backward pass of the model on this device and takes the
    faster of fp32 and bf16; fp16 scales the loss."""
    lr_image: float | None = Field(default=None, gt=0.0)
    """Learning rate of the image tower, where it differs (a pretrained tower, say)."""
    lr_text: float | None = Field(default=None, gt=0.0)
    """Learning rate of the text tower, where it differs."""
    layer_decay: float | None = Field(default=None, gt=0.0, le=1.0)
    """Factor on the learning rate from each block of a tower to the one below it (BEiT's and MAE's
    fine-tuning: 0.65 to 0.9); projections, head and logit scale learn at the whole rate."""
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Decay, per step, of a moving average of what learns (0.9999 over 100,000 steps, 0.99 over
    1,000); at step t it is min(ema, t / (t + 9)). The average is what is evaluated and left as the
    run's model; checkpoints hold it beside the raw weights, from which training goes on."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> "OptimSection":
        cooldown = self.cooldown_share
        if self.schedule == "cosine" and self.cooldown is not None:
            raise ValueError(
                f"cooldown {self.cooldown} with schedule 'cosine', which falls all along; "
                "allowed: constant, wsd"
            )
        if self.schedule == "wsd" and cooldown == 0.0:
            raise ValueError("cooldown 0 with schedule 'wsd'; allowed: above 0, or 'constant'")
        if self.schedule == "constant" and cooldown == 0.0 and self.final_lr:
            raise ValueError(
                f"final_lr {self.final_lr} with a constant rate that never falls; "
                "allowed: with a cooldown above 0"
            )
        if self.warmup + cooldown > 1.0:
            raise ValueError(
                f"warmup {self.warmup} and cooldown {cooldown} are more than all of training; "
                "allowed: at most 1 together"
            )
        return self

    @property
    def cooldown_share(self) -> float:
        """``cooldown``, with the schedule's own in place of an absent one."""
        if self.cooldown is not None:
            return self.cooldown
        return 0.2 if self.schedule == "wsd" else 0.0  # 20 %: Hägele et al. 2024, figure 5

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> "OptimSection":
        if self.micro_batch is not None and self.global_batch % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide global_batch {self.global_batch}"
            )
        return self

    @model_validator(mode="after")
    def _one_length(self) -> "OptimSection":
        if (self.samples_seen is None) == (self.epochs is None):
            raise ValueError(
                f"give exactly one of samples_seen (here {self.samples_seen}) and epochs "
                f"(here {self.epochs}); null takes one back"
            )
        return self


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
    device: Literal["auto", "cpu", "cuda"] = "auto"
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
    """Steps between checkpoints; the last step always has one."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept; older ones are deleted once a newer one is complete."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; absent: only after the last step."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of metrics."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = ["tensorboard"]
    """Where figures go beside the run folder. trackio stays on this machine."""
    neighbours: bool = True
    """Whether the run's page shows what the model finds nearest before and after training. It then
    holds small copies of pictures of the evaluated set."""


def _locks_image(adapt: AdaptSection) -> bool:
    if isinstance(adapt, FullAdapt):
        return "image" in adapt.lock
    if isinstance(adapt, ProbeAdapt | ProjectionAdapt | TipAdapterAdapt):
        return True
    return "image" not in adapt.towers


class Recipe(Section):
    """A whole run: model, data, objective, what learns, how long, and how it is judged."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Of the run and, unless told otherwise, of the model."""
    seed: int = Field(default=0, ge=0)
    """Weights, order of samples, augmentation: all of them."""
    model: ModelSection | None = None
    init: InitSection | None = None
    data: DataSection
    objective: ObjectiveSection = Field(default_factory=ClipObjective)
    distill: DistillSection | None = None
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
        known = metrics_of(target)
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
