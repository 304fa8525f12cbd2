"""The objective section of a recipe: what a batch is scored by."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ptft.recipe.evaluation import DetectEvaluation, EvaluateItem, Template
from ptft.recipe.reads import TOWERS_OF, Reads
from ptft.recipe.section import Section

__all__ = [
    "ClassifyObjective",
    "ClipObjective",
    "DetectObjective",
    "ObjectiveSection",
    "SelfSupervisedObjective",
    "SiglipObjective",
    "doubles_problem",
    "learns_classes",
    "read_towers",
    "usual_nms",
]


_NMS = 0.5  # where a recipe that needs one evaluates nothing


def _rising(widths: list[int]) -> list[int]:
    if widths != sorted(set(widths)):
        raise ValueError("allowed: widths from the smallest to the largest, each once")
    return widths


_Widths = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(_rising)]


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
    matryoshka: _Widths | None = None
    """Widths below the embedding's own, such as ``[64, 128, 256]``: the loss is the mean of those
    of the embeddings cut to each of them, made of length 1 again, and of the whole ones, so that
    the first dimensions serve by themselves (Kusupati et al. 2022). The export records them, and
    the service cuts to them for whoever asks for ``dimensions``."""


class SiglipObjective(Section):
    """Pairwise sigmoid loss with a learned bias (Zhai et al. 2023, SigLIP)."""

    kind: Literal["siglip"] = "siglip"
    init_temperature: float = Field(default=0.1, gt=0.0)
    """Temperature at the start, where the model is new; it is learned."""
    init_bias: float = -10.0
    """Bias of the logits at the start, so that most pairs begin as negatives; it is learned."""
    max_logit_scale: float = Field(default=100.0, gt=1.0)
    """As of ``clip``."""
    multi_positive: bool = True
    """As of ``clip``."""
    templates: Annotated[list[Template], Field(min_length=1)] | None = None
    """As of ``clip``."""
    matryoshka: _Widths | None = None
    """As of ``clip``."""


class ClassifyObjective(Section):
    """Cross-entropy on a head over what is embedded of a sample, one row a class; where a sample
    may have several (``data.labels``) binary cross-entropy of each class by itself, with a sigmoid,
    and after training a threshold for each, which ``data.val`` chooses."""

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
    """Share of the target that is spread evenly over all classes; of several classes a sample over
    yes and no of each."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0.0)]] | None = None
    """What a sample's loss is multiplied by, by its class: ``balanced`` is N / (C * N_c) of N
    training samples of C classes, so that rare ones count as much as frequent ones, and the weights
    are 1 on average; or weights by name, of which those that are not named are 1.
    ``data.resample: class`` draws rare classes more often instead; allowed is one of them. Of
    several classes a sample it is what the loss of a class that is there is multiplied by, and
    ``balanced`` is the samples without it over those with it."""
    focal: float = Field(default=0.0, ge=0.0, le=10.0)
    """The focal loss's gamma (Lin et al. 2017): the loss is multiplied by (1 - p)^gamma, p being
    the probability of the right class, so that what is sure already counts less. 0 is
    cross-entropy."""
    calibrate: bool = False
    """After training, divide the head's logits by the temperature at which the classes of
    ``data.val`` are likeliest (Guo et al. 2017), so that confidence can be trusted. It changes no
    prediction, and the model that is saved, exported and served has it."""
    max_logit_scale: float = Field(default=100.0, gt=1.0)
    """The learned scale of the head's logits is clamped to at most this."""


class DetectObjective(Section):
    """Boxes and their classes, told by texts: a head on the image tower's grid (OWL-ViT, Minderer
    et al. 2022), whose places are compared with the embeddings of class names."""

    kind: Literal["detect"] = "detect"
    templates: list[Template] = Field(default=["a photo of a {}."], min_length=1)
    """Prompts; ``{}`` is the class name, and a class is the mean of its prompts' embeddings."""
    image_size: int | None = Field(default=None, ge=32, le=2048)
    """Side of the pictures that the tower is given, to which its position embeddings are
    interpolated; absent: its own."""
    fit: Literal["squash", "longest"] = "squash"
    """How a picture is brought to that square: both sides scaled, as transformers' OWL-ViT does, or
    the longer one and the shorter padded."""
    maps: int = Field(default=2, ge=1, le=5)
    """Of a convolutional tower: how many of its last feature maps are read; each halves the
    distance of places."""
    width: int = Field(default=256, ge=16, le=4096)
    """Of a convolutional tower's places."""
    queries: int = Field(default=256, ge=1)
    """Classes of a step at most: those that its pictures show, and others as wrong answers."""
    places: int = Field(default=1, ge=1, le=64)
    """That a thing is given in training. One needs no NMS. Several learn more from a step, which
    counts with few pictures (Jia et al. 2023), and tell a thing several times: set ``nms``. That of
    the first ``detect`` evaluation, or 0.5, is then what answers of the model have unless they are
    asked for with another."""
    count: bool = False
    """Choose on ``data.val``, after training, by what things are counted: of each class the score
    from which a box counts, so that the mean error of a picture's count, as a share of what is
    marked there, is least, and for all classes the IoU of an NMS."""
    mosaic: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the training pictures that are four put together."""
    class_weight: float = Field(default=1.0, ge=0.0)
    """Of the focal loss of classes, here and where boxes are given to places."""
    l1_weight: float = Field(default=1.0, ge=0.0)
    """Of the L1 distance of boxes, likewise."""
    giou_weight: float = Field(default=1.0, ge=0.0)
    """Of the generalised IoU of boxes, likewise."""


class SelfSupervisedObjective(Section):
    """Pictures alone: the image tower learns what two views of one picture have in common, and to
    keep pictures apart, without labels or captions (VICReg, Bardes et al. 2022).

    It takes no pairs of different pictures for negatives, so that small batches and pictures that
    resemble each other serve. The embeddings themselves are what is held, without an expander: a
    tower that was trained before is to stay useful as it is. A view is a sample seen: a batch holds
    two of each picture, and ``augment`` has to leave something to chance. The text tower stays, and
    a classifier's head is dropped.
    """

    kind: Literal["self_supervised"] = "self_supervised"
    invariance: float = Field(default=25.0, gt=0.0)
    """Weight of the squared distance of the two views of a picture."""
    variance: float = Field(default=25.0, ge=0.0)
    """Weight of what each dimension's standard deviation over the pictures lacks to 1, the
    embeddings being of length sqrt(D)."""
    covariance: float = Field(default=1.0, ge=0.0)
    """Weight of the squared covariances of different dimensions."""


ObjectiveSection = Annotated[
    ClipObjective | SiglipObjective | ClassifyObjective | DetectObjective | SelfSupervisedObjective,
    Field(discriminator="kind"),
]


def doubles_problem(objective: ObjectiveSection, items: Sequence[EvaluateItem]) -> str | None:
    """What is wrong where a detector tells a thing several times and an evaluation takes each."""
    if objective.kind != "detect" or objective.places == 1:
        return None
    for index, item in enumerate(items):
        if isinstance(item, DetectEvaluation) and item.nms is None:
            return (
                f"evaluate.{index}.nms: null with objective.places: {objective.places}, which "
                "tells a thing as often; allowed: an IoU, 0.5 as a rule"
            )
    return None


def usual_nms(objective: DetectObjective, items: Sequence[EvaluateItem]) -> float | None:
    """The IoU of the NMS that a detector's answers need, as its recipe has it; None: they need
    none, since it is taught to tell each thing once."""
    if objective.places == 1:
        return None
    told = (one.nms for one in items if isinstance(one, DetectEvaluation) and one.nms is not None)
    return next(told, _NMS)


def learns_classes(objective: "ObjectiveSection | None") -> bool:
    """Whether a sample without a class has nothing to learn from."""
    if isinstance(objective, ClipObjective | SiglipObjective):
        return objective.templates is not None
    return isinstance(objective, ClassifyObjective)


def read_towers(objective: ObjectiveSection) -> tuple[Literal["image", "text"], ...]:
    """The towers that an objective reads."""
    if isinstance(objective, SelfSupervisedObjective):
        return ("image",)
    return TOWERS_OF[objective.reads if isinstance(objective, ClassifyObjective) else "both"]
