"""The evaluations that a recipe names, and the figures that models can be compared by."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from ptft.recipe.data import DataSection, has_many_labels
from ptft.recipe.reads import Reads
from ptft.recipe.section import LONGEST_NAME, Section

__all__ = [
    "ClassifyEvaluation",
    "DetectEvaluation",
    "EvaluateItem",
    "ProbeEvaluation",
    "RetrievalEvaluation",
    "Template",
    "ZeroShotEvaluation",
    "metrics_of",
]


def _has_place(template: str) -> str:
    if "{}" not in template:
        raise ValueError(f"{template!r} lacks {{}}, where the class name goes")
    return template


Template = Annotated[str, AfterValidator(_has_place)]


class _Evaluation(Section):
    kind: str
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$", max_length=LONGEST_NAME)
    """Under which its figures stand in ``metrics.json``; absent: the kind."""
    data: DataSection | None = None
    """Absent: the recipe's own data section."""
    split: Literal["train", "val", "test"] = "val"
    """What is measured; ``test`` is read when training is done."""
    batch: int = Field(default=256, ge=1)
    """Samples that are embedded at once; it changes no figure."""

    @property
    def label(self) -> str:
        """The name that its figures have."""
        return self.name or self.kind


class RetrievalEvaluation(_Evaluation):
    """recall@k in both directions; several captions of an image each count as its own query."""

    kind: Literal["retrieval"] = "retrieval"
    ks: list[PositiveInt] = Field(default=[1, 5, 10], min_length=1)
    """The k of recall@k: the right answer is among the first k."""

    @property
    def recalls(self) -> list[str]:
        """Names of its figures, the smallest k first."""
        return [f"{way}_recall@{k}" for way in ("i2t", "t2i") for k in sorted(self.ks)]


class ZeroShotEvaluation(_Evaluation):
    """Accuracy of the class whose prompts' mean embedding is nearest; of samples with several
    classes each (``data.labels``) their mean average precision by these similarities."""

    kind: Literal["zero_shot"] = "zero_shot"
    reads: Reads = "image"
    """To what: the picture, the ``text``, or ``both`` on average."""
    templates: list[Template] = Field(default=["a photo of a {}."], min_length=1)
    """Prompts; ``{}`` is the class name, and a class is the mean of its prompts' embeddings."""


class ProbeEvaluation(_Evaluation):
    """Accuracy of logistic regression on the embeddings of ``train``."""

    kind: Literal["probe"] = "probe"
    reads: Reads = "image"
    """The pictures' embeddings, the texts', or ``both`` one after the other."""
    c: float | None = Field(default=None, gt=0.0)
    """Inverse L2 strength as scikit-learn has it; absent: chosen on a fifth of ``train``."""


class ClassifyEvaluation(_Evaluation):
    """Accuracy of the model's own trained head, on what it reads; where it learned several classes
    a sample (``data.labels``) their mean average precision, and F1 at the head's thresholds."""

    kind: Literal["classify"] = "classify"


class DetectEvaluation(_Evaluation):
    """COCO's average precision of a detector, asked for the classes of the split by their names."""

    kind: Literal["detect"] = "detect"
    templates: list[Template] | None = Field(default=None, min_length=1)
    """Prompts as of ``zero_shot``; absent: the detector's own."""
    classes: list[str] | None = Field(default=None, min_length=1)
    """Those of the set that count; boxes of others are neither right nor wrong. Absent: all."""
    most: int = Field(default=100, ge=1, le=1000)
    """Boxes of a picture that count, the surest first."""
    nms: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Of boxes of one class that overlap by more than this IoU only the surest stays; absent: all
    do, since training gives each thing one place."""


EvaluateItem = Annotated[
    RetrievalEvaluation
    | ZeroShotEvaluation
    | ProbeEvaluation
    | ClassifyEvaluation
    | DetectEvaluation,
    Field(discriminator="kind"),
]


def metrics_of(item: EvaluateItem, data: DataSection) -> list[str]:
    """Names of the figures that models can be compared by: shares of 1, more is better.

    Args:
        data: of the recipe, for an item without its own.
    """
    if isinstance(item, RetrievalEvaluation):
        return item.recalls
    if isinstance(item, DetectEvaluation):
        return ["map", "ap50", "ap75"]
    if not has_many_labels(item.data or data):
        return ["top1"]
    by_threshold = ["micro_f1", "macro_f1"] if isinstance(item, ClassifyEvaluation) else []
    return ["map", *by_threshold, "top1", "all_first"]
