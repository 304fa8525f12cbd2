"""The schema of a recipe. It holds every default; a recipe holds only differences."""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    Tag,
    model_validator,
)

from ptft.recipe.data import DataSection
from ptft.recipe.section import Section

__all__ = [
    "AdaptSection",
    "ArchModel",
    "AugmentSection",
    "ClassifyEvaluation",
    "ClassifyObjective",
    "ClipObjective",
    "EvaluateItem",
    "FullAdapt",
    "InitSection",
    "ModelSection",
    "ObjectiveSection",
    "OptimSection",
    "ProbeAdapt",
    "ProbeEvaluation",
    "Recipe",
    "RetrievalEvaluation",
    "RunSection",
    "SiglipObjective",
    "TextTower",
    "TowersModel",
    "ZeroShotEvaluation",
]


def _has_place(template: str) -> str:
    if "{}" not in template:
        raise ValueError(f"{template!r} lacks {{}}, where the class name goes")
    return template


Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Template = Annotated[str, AfterValidator(_has_place)]


class ArchModel(Section):
    """An open_clip architecture by name."""

    name: str
    """As ``ptft ls --architectures`` lists them: ``ViT-B-32``, ``ViT-B-16-SigLIP``, ..."""
    pretrained: str | None = None
    """Weights to start from: an open_clip tag (``laion2b_s34b_b79k``), ``org/repo@revision`` on the
    Hub, or a local folder or safetensors file. Absent: random."""
    image_size: int | None = Field(default=None, ge=16)
    """Side in pixels, where it differs from the architecture's; position embeddings are resized."""


class TextTower(Section):
    """A causal transformer with CLIP's byte-pair vocabulary, as in open_clip."""

    width: int = Field(default=256, ge=16)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    context_length: int = Field(default=77, ge=4)
    """Longest text in tokens, the start and end marks included."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TextTower":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class TowersModel(Section):
    """A timm image tower and a text tower, joined by projections of one width."""

    image: str
    """A timm model name: ``vit_small_patch16_224``, ``mobilenetv2_100``, ..."""
    image_weights: str | None = None
    """A timm tag, a local safetensors file, or a Hub id with revision. Absent: random."""
    image_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Keyword arguments of ``timm.create_model`` (``pad_type: same``). open_clip's own files cannot
    carry them; an export says so."""
    image_size: int = Field(default=224, ge=16)
    """Side in pixels."""
    image_pool: str = ""
    """timm's global pooling (``avg``, ``token``, ``map``); empty: the model's own."""
    image_projection: Literal["linear", "mlp", "none"] = "linear"
    text: str | TextTower = Field(default_factory=TextTower)
    """A transformers model (Hub id or local folder), or the widths of a CLIP text transformer."""
    text_weights: bool = True
    """Whether a transformers text tower starts from its published weights."""
    text_projection: Literal["linear", "mlp", "none"] = "linear"
    text_pool: Literal[
        "mean_pooler", "cls_pooler", "max_pooler", "cls_last_hidden_state_pooler"
    ] = "mean_pooler"
    """Pooling of a transformers text tower, by open_clip's names."""
    context_length: int = Field(default=77, ge=4)
    """Longest text in tokens, for a transformers text tower."""
    embed_dim: int = Field(default=512, ge=8)
    """Width of the joint space."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's CLIP
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    """Pixel normalisation, in units of full brightness."""


def _which_model(value: object) -> str:
    if isinstance(value, dict):
        return "towers" if "image" in value else "name"
    return "towers" if isinstance(value, TowersModel) else "name"


ModelSection = Annotated[
    Annotated[ArchModel, Tag("name")] | Annotated[TowersModel, Tag("towers")],
    Discriminator(_which_model),
]


class InitSection(Section):
    """Start from the model of an artefact: its architecture, preprocessing and weights."""

    from_: str = Field(alias="from")
    """A run folder, a model folder, or ``org/repo@revision`` on the Hub."""


class ClipObjective(Section):
    """InfoNCE over the batch, both ways (Radford et al. 2021, CLIP)."""

    kind: Literal["clip"] = "clip"
    init_temperature: float = Field(default=0.07, gt=0.0)
    """Softmax temperature at the start, where the model is new; it is learned."""
    max_logit_scale: float = Field(default=100.0, gt=1.0)
    """The learned scale (1/temperature) is clamped to at most this."""
    multi_positive: bool = True
    """Pairs of one caption are positives of each other, not negatives."""


class SiglipObjective(Section):
    """Pairwise sigmoid loss with a learned bias (Zhai et al. 2023, SigLIP)."""

    kind: Literal["siglip"] = "siglip"
    init_temperature: float = Field(default=0.1, gt=0.0)
    init_bias: float = -10.0
    max_logit_scale: float = Field(default=100.0, gt=1.0)
    multi_positive: bool = True


class ClassifyObjective(Section):
    """Cross-entropy on a head over the image embedding, one row a class."""

    kind: Literal["classify"] = "classify"
    head: Literal["prompts", "random"] = "prompts"
    """Rows start as the text embeddings of the class names in the templates, or at random."""
    templates: list[Template] = Field(default=["a photo of a {}."], min_length=1)
    """Prompts; ``{}`` is the class name."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    max_logit_scale: float = Field(default=100.0, gt=1.0)


ObjectiveSection = Annotated[
    ClipObjective | SiglipObjective | ClassifyObjective, Field(discriminator="kind")
]


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


AdaptSection = Annotated[FullAdapt | ProbeAdapt, Field(discriminator="kind")]


class OptimSection(Section):
    """AdamW with warm-up and a schedule, counted in samples so that batch sizes compare."""

    lr: float = Field(default=5e-4, gt=0.0)
    weight_decay: float = Field(default=0.2, ge=0.0)
    """Not applied to norms, biases, position and class embeddings, logit scale and bias."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(default=1e-6, gt=0.0)
    global_batch: int = Field(default=256, ge=1)
    """Samples a step over all ranks."""
    samples_seen: int | None = Field(default=None, ge=1)
    """Length of training; this or ``epochs``."""
    epochs: float | None = Field(default=None, gt=0.0)
    """Length of training in passes over the training set."""
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of training over which the learning rate rises from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_grad_norm: float | None = Field(default=1.0, gt=0.0)
    """Largest L2 norm of the gradient; absent: not clipped."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto`` measures a forward and backward pass of the model on this device and takes the
    faster of fp32 and bf16; fp16 scales the loss."""
    lr_image: float | None = Field(default=None, gt=0.0)
    """Learning rate of the image tower, where it differs (a pretrained tower, say)."""
    lr_text: float | None = Field(default=None, gt=0.0)
    """Learning rate of the text tower, where it differs."""

    @model_validator(mode="after")
    def _one_length(self) -> "OptimSection":
        if (self.samples_seen is None) == (self.epochs is None):
            raise ValueError(
                f"give exactly one of samples_seen (here {self.samples_seen}) and epochs "
                f"(here {self.epochs}); null takes one back"
            )
        return self


class AugmentSection(Section):
    """What training does to a picture before it is normalised."""

    crop_scale: tuple[float, float] = (0.9, 1.0)
    """Range of the area share of a random crop; (1, 1): the evaluation transform."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's aspect ratio."""
    flip: bool = False
    """Mirror half of the pictures. Off, since captions speak of left and right."""
    colour_jitter: float = Field(default=0.0, ge=0.0, le=1.0)
    """Largest relative change of brightness, contrast and saturation."""

    @model_validator(mode="after")
    def _ordered(self) -> "AugmentSection":
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale {self.crop_scale}: allowed is 0 < low <= high <= 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio {self.crop_ratio}: allowed is 0 < low <= high")
        return self


class _Evaluation(Section):
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")
    """Under which its figures stand in ``metrics.json``; absent: the kind."""
    data: DataSection | None = None
    """Absent: the recipe's own data section."""
    split: Literal["train", "val", "test"] = "val"
    batch: int = Field(default=256, ge=1)


class RetrievalEvaluation(_Evaluation):
    """recall@k in both directions; several captions of an image each count as its own query."""

    kind: Literal["retrieval"] = "retrieval"
    ks: list[PositiveInt] = Field(default=[1, 5, 10], min_length=1)


class ZeroShotEvaluation(_Evaluation):
    """Accuracy of the class whose prompts' mean embedding is nearest."""

    kind: Literal["zero_shot"] = "zero_shot"
    templates: list[Template] = Field(default=["a photo of a {}."], min_length=1)


class ProbeEvaluation(_Evaluation):
    """Accuracy of logistic regression on the image embeddings of ``train``."""

    kind: Literal["probe"] = "probe"
    c: float | None = Field(default=None, gt=0.0)
    """Inverse L2 strength as scikit-learn has it; absent: chosen on a fifth of ``train``."""


class ClassifyEvaluation(_Evaluation):
    """Accuracy of the model's own trained head."""

    kind: Literal["classify"] = "classify"


EvaluateItem = Annotated[
    RetrievalEvaluation | ZeroShotEvaluation | ProbeEvaluation | ClassifyEvaluation,
    Field(discriminator="kind"),
]


class RunSection(Section):
    """Where a run lies, how often it saves and reports, and on what it runs."""

    dir: str | None = None
    """The run folder. Absent: ``runs/<name>``, numbered when that one exists."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    """Of torch on the CPU; absent: torch's own choice."""
    workers: NonNegativeInt | Literal["auto"] = "auto"
    """Processes that load data; 0: none. Results do not depend on it."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints; the last step always has one."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept; older ones are deleted once a newer one is complete."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; absent: only after the last step."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of metrics."""
    trackers: list[Literal["tensorboard", "wandb"]] = ["tensorboard"]


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
    adapt: AdaptSection = Field(default_factory=FullAdapt)
    augment: AugmentSection = Field(default_factory=AugmentSection)
    optim: OptimSection
    evaluate: list[EvaluateItem] = []
    run: RunSection = Field(default_factory=RunSection)

    @model_validator(mode="after")
    def _has_weights(self) -> "Recipe":
        if (self.model is None) == (self.init is None):
            raise ValueError(
                "give either a model section, or init.from to start from an artefact's model"
            )
        names = [item.name or item.kind for item in self.evaluate]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"evaluate: two items are named {', '.join(twice)}; give each a name")
        return self
