"""Who is found: the rank of the right answer, query by query, for every kind of evaluation.

All figures and all hits are read off these ranks, so that two places that measure one model agree.

Conventions, in the field's terms (Karpathy & Fei-Fei 2015, as ALBEF and BLIP evaluate):

- Image to text (i2t): an image is found at k if *any* of its captions is among its k best texts.
- Text to image (t2i): every caption is a query of its own, found if its image is among the k best.
- An image without a caption is no query, and stays a candidate for the captions.
- An equal caption of *another* image stays a wrong answer, as it does in published figures.
- A tie counts against the model: in a retrieval a wrong candidate within ``TIE`` of the right one
  is ranked before it, among classes one with the same score. A collapsed model, whose embeddings
  are all alike, then scores 0 and not 1; so does one that gives NaN, since what is not known to be
  worse counts as better.

Shape letters: N samples, M texts, C classes, Q queries, D width of the joint space, W width of what
a class head reads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.errors import DataError, ModelError, suggest
from ptft.evaluate.embed import SplitEmbeddings
from ptft.evaluate.probe import LinearProbe, choose_c, fit_probe
from ptft.model import DualEncoder, class_head, rows_for
from ptft.recipe import (
    ClassifyEvaluation,
    EvaluateItem,
    ProbeEvaluation,
    ZeroShotEvaluation,
)

__all__ = [
    "SCORES_AT_ONCE",
    "TIE",
    "ClassRanks",
    "EmbedTexts",
    "RetrievalRanks",
    "Way",
    "caption_ranks",
    "class_ranks",
    "image_ranks",
    "rank_captions",
    "rank_classes",
    "rank_labels",
    "rank_probe",
    "rank_retrieval",
]

TIE = 1e-6
"""Cosines closer than this are equal: a few times the rounding of a float32 dot product."""

SCORES_AT_ONCE = 1 << 24  # scores held at once: 64 MiB of float32

Way = Literal["i2t", "t2i"]
"""Image to text, or text to image."""

EmbedTexts = Callable[[Sequence[str]], Tensor]
"""Texts -> L2-normalised float32 (M, D)."""


@dataclass(frozen=True)
class RetrievalRanks:
    """A retrieval, both ways; all tensors on one device.

    Attributes:
        i2t_q: int64 (Q,), how many captions of other images come before the best own one, of each
            image that has a caption.
        t2i_m: int64 (M,), how many other images come before the caption's own.
        captions_n: int64 (N,), how many captions each image has.
        images_nd, texts_md: L2-normalised embeddings.
        image_of_text_m: int64, the row of ``images_nd`` that each caption belongs to.
        captions: the texts, where they are known as words.
    """

    i2t_q: Tensor
    t2i_m: Tensor
    captions_n: Tensor
    images_nd: Tensor
    texts_md: Tensor
    image_of_text_m: Tensor
    captions: list[str] = field(default_factory=list)

    def of(self, way: Way) -> Tensor:
        """The ranks of one way."""
        return self.i2t_q if way == "i2t" else self.t2i_m

    def scores(self, way: Way, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Score every query with every candidate, times ``scale``, and say which are right: float
        and bool (Q, candidates). Nothing is kept between calls."""
        scores_nm = scale * self.images_nd @ self.texts_md.T
        rows_n = torch.arange(len(self.images_nd), device=scores_nm.device)
        own_nm = self.image_of_text_m[None, :] == rows_n[:, None]
        if way == "t2i":
            return scores_nm.T, own_nm.T
        asked_n = self.captions_n > 0
        return scores_nm[asked_n], own_nm[asked_n]


@dataclass(frozen=True)
class ClassRanks:
    """A classification.

    Attributes:
        ranks_n: int64 (N,), how many wrong classes score at least as high as the right one.
        logits_nc: scores, scaled as the model's softmax wants them.
        labels_n: int64 (N,), the right classes.
    """

    ranks_n: Tensor
    logits_nc: Tensor
    labels_n: Tensor

    def scores(self) -> tuple[Tensor, Tensor]:
        """Logits (N, C) and which class is right: bool (N, C)."""
        return self.logits_nc, F.one_hot(self.labels_n, self.logits_nc.shape[1]).bool()


def rank_captions(
    model: DualEncoder, found: SplitEmbeddings, embed: EmbedTexts, *, split: str
) -> RetrievalRanks:
    """Rank the images and captions of a split both ways, on the model's device.

    Args:
        embed: embeds the captions, with this model.
        split: its name, for errors.

    Raises:
        DataError: no image has a caption.
    """
    inputs_nw, captions = found.by_picture()
    texts = [caption for own in captions for caption in own]
    if not texts:
        raise DataError(
            f"evaluate: retrieval needs captions, and no image of {split} has one; "
            "see data.captions"
        )
    counts_n = torch.tensor([len(own) for own in captions])
    owner_m = torch.arange(len(counts_n)).repeat_interleave(counts_n)
    texts_md = embed(texts).to(model.device)
    return rank_retrieval(inputs_nw.to(model.device), texts_md, owner_m.to(model.device), texts)


def rank_labels(
    model: DualEncoder,
    item: ZeroShotEvaluation | ClassifyEvaluation,
    found: SplitEmbeddings,
    *,
    split: str,
) -> ClassRanks:
    """Rank the classes of a split by their prompts or by the model's head, on its device.

    Zero-shot takes the class whose prompts' mean embedding is nearest (Radford et al. 2021, section
    3.1), of the classes of the split's own set. A head's rows are matched to the set's classes by
    name.

    Args:
        found: the split, with what the evaluation reads of it.
        split: its name, for errors.

    Raises:
        DataError: no sample has a label, or the head knows no class of that name.
        ModelError: ``classify``, and the model has no head.
    """
    if isinstance(item, ClassifyEvaluation) and model.head is None:
        raise ModelError(f"{model.spec.name}: evaluate: classify needs a head; this model has none")
    inputs_nw, labels_n, classes = _labelled(model, item, found, split)
    if isinstance(item, ZeroShotEvaluation):
        rows_cw = rows_for(class_head(model, classes, item.templates), item.reads)
        return rank_classes(model.logit_scale.exp() * inputs_nw @ rows_cw.T, labels_n)
    labels_n = _renumbered(labels_n, classes, model.spec.classes, "the model's head")
    return rank_classes(model.class_logits(inputs_nw), labels_n)


def rank_probe(
    model: DualEncoder,
    item: ProbeEvaluation,
    found: SplitEmbeddings,
    train: SplitEmbeddings,
    *,
    seed: int,
    split: str,
) -> tuple[ClassRanks, LinearProbe]:
    """Rank classes by a probe that is fitted to ``train`` on the model's device.

    Args:
        seed: of the fifth of ``train`` that C is chosen on.
        split: the name of the split that is ranked, for errors.

    Raises:
        DataError: no sample of either has a label, or ``train`` has no class of that name.
    """
    train_nw, train_n, classes = _labelled(model, item, train, "train")
    inputs_nw, labels_n, given = _labelled(model, item, found, split)
    labels_n = _renumbered(labels_n, given, classes, "train")
    c = item.c
    if c is None:
        c = choose_c(train_nw, train_n, classes=len(classes), seed=seed)
    probe = fit_probe(train_nw, train_n, classes=len(classes), c=c)
    return rank_classes(probe.logits(inputs_nw), labels_n), probe


def rank_retrieval(
    images_nd: Tensor,
    texts_md: Tensor,
    image_of_text_m: Tensor,
    captions: Sequence[str] = (),
) -> RetrievalRanks:
    """Rank embeddings both ways.

    Args:
        images_nd, texts_md: L2-normalised float embeddings on one device.
        image_of_text_m: int64, the row of ``images_nd`` that each caption belongs to.
        captions: the texts, where they are known as words.

    Raises:
        DataError: no image has a caption.
    """
    captions_n = torch.bincount(image_of_text_m, minlength=len(images_nd))
    if not bool((captions_n > 0).any()):
        raise DataError("retrieval needs captions: no image of this split has one")
    return RetrievalRanks(
        image_ranks(images_nd, texts_md, image_of_text_m)[captions_n > 0],
        caption_ranks(images_nd, texts_md, image_of_text_m),
        captions_n,
        images_nd,
        texts_md,
        image_of_text_m,
        list(captions),
    )


def rank_classes(logits_nc: Tensor, labels_n: Tensor) -> ClassRanks:
    """Rank the right class of each sample by its logits.

    Raises:
        DataError: there is no sample, or a label is not a class.
    """
    total, classes = logits_nc.shape
    if total == 0:
        raise DataError("nothing to classify: no sample of this split has a label")
    if int(labels_n.min()) < 0 or int(labels_n.max()) >= classes:
        raise DataError(
            f"labels run from {int(labels_n.min())} to {int(labels_n.max())}; "
            f"allowed with {classes} classes: 0 to {classes - 1}"
        )
    return ClassRanks(class_ranks(logits_nc, labels_n), logits_nc, labels_n)


def class_ranks(logits_nc: Tensor, labels_n: Tensor) -> Tensor:
    """Count the wrong classes that score at least as high as the right one: int64 (N,)."""
    own_n = logits_nc.gather(1, labels_n[:, None])
    return (~(logits_nc < own_n)).sum(dim=1) - 1


def image_ranks(images_nd: Tensor, texts_md: Tensor, image_of_text_m: Tensor) -> Tensor:
    """Count the captions of other images before each image's best own one: int64 (N,).

    An image without a caption gets M, as good as never found.
    """
    total_n, total_m = len(images_nd), len(texts_md)
    ranks_n = torch.empty(total_n, dtype=torch.int64, device=images_nd.device)
    step = max(1, SCORES_AT_ONCE // max(1, total_m))
    for start in range(0, total_n, step):
        scores_cm = images_nd[start : start + step] @ texts_md.T
        rows_c = torch.arange(start, start + len(scores_cm), device=scores_cm.device)
        own_cm = image_of_text_m[None, :] == rows_c[:, None]
        best_c = scores_cm.masked_fill(~own_cm, -math.inf).amax(dim=1)
        before_c = (~(scores_cm < best_c[:, None] - TIE) & ~own_cm).sum(dim=1)
        ranks_n[start : start + step] = torch.where(own_cm.any(dim=1), before_c, total_m)
    return ranks_n


def caption_ranks(images_nd: Tensor, texts_md: Tensor, image_of_text_m: Tensor) -> Tensor:
    """Count the other images before each caption's own: int64 (M,)."""
    total_n, total_m = len(images_nd), len(texts_md)
    ranks_m = torch.empty(total_m, dtype=torch.int64, device=images_nd.device)
    step = max(1, SCORES_AT_ONCE // max(1, total_n))
    for start in range(0, total_m, step):
        scores_cn = texts_md[start : start + step] @ images_nd.T
        own_c = image_of_text_m[start : start + step, None]
        own_scores_c = scores_cn.gather(1, own_c)
        # Its own image is always within the margin of itself, hence the 1.
        ranks_m[start : start + step] = (~(scores_cn < own_scores_c - TIE)).sum(dim=1) - 1
    return ranks_m


def _labelled(
    model: DualEncoder, item: EvaluateItem, found: SplitEmbeddings, split: str
) -> tuple[Tensor, Tensor, list[str]]:
    """Embeddings (N, W), labels (N,) and class names, on the model's device."""
    labelled = found.labelled()
    if labelled is None or found.classes is None or len(labelled[1]) == 0:
        raise DataError(
            f"evaluate: {item.kind} needs labels, and no sample of {split} has one; see data.label"
        )
    inputs_nw, labels_n = labelled
    return inputs_nw.to(model.device), labels_n.to(model.device), found.classes


def _renumbered(
    labels_n: Tensor, given: Sequence[str], wanted: Sequence[str], where: str
) -> Tensor:
    """Number labels as ``wanted`` numbers their names; a class that occurs and is not
    among them is a DataError."""
    if list(given) == list(wanted):
        return labels_n
    number = {name: index for index, name in enumerate(wanted)}
    for label in torch.unique(labels_n).tolist():
        if given[label] not in number:
            raise DataError(
                f"class {given[label]!r}: unknown to {where}; {suggest(given[label], wanted)}"
            )
    table = torch.tensor([number.get(name, -1) for name in given], device=labels_n.device)
    return table[labels_n]
