"""Classes that do not exclude each other: what a model scores them, and the figures of that.

Shape letters: N samples, C classes, W width of what is scored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptft.errors import DataError, ModelError, suggest
from ptft.evaluate.embed import SplitEmbeddings
from ptft.evaluate.figures import gap_of
from ptft.evaluate.ranks import blocks_of, parts_of
from ptft.model import DualEncoder, class_head, rows_for
from ptft.recipe import ClassifyEvaluation, ZeroShotEvaluation

__all__ = [
    "LabelScores",
    "average_precisions",
    "f1_scores",
    "label_figures",
    "label_ranks",
    "picture_ranks",
    "score_labels",
]


@dataclass(frozen=True)
class LabelScores:
    """What a model says of every class of every sample.

    Attributes:
        logits_nc: float32 (N, C); a head's sigmoid makes probabilities of them.
        has_nc: bool (N, C), which are right.
        classes: their names.
        places_n: int64 (N,), of the samples in their set.
        thresholds_c: float64 (C,), the probability from which each is told; None: similarities of
            prompts, which are no probabilities.
    """

    logits_nc: Tensor
    has_nc: Tensor
    classes: list[str]
    places_n: Tensor
    thresholds_c: Tensor | None = None

    @property
    def probabilities_nc(self) -> Tensor:
        """float64 (N, C)."""
        return self.logits_nc.double().sigmoid()

    def told_nc(self, thresholds_c: Tensor) -> Tensor:
        """bool (N, C), which classes reach their thresholds."""
        pieces = [
            self.logits_nc[rows].double().sigmoid() >= thresholds_c
            for rows in parts_of(self.logits_nc)
        ]
        return torch.cat(pieces)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each decision as one of two candidates, no and yes: float and bool (B, 2)."""
        for rows in blocks_of(len(self.logits_nc), 2 * len(self.classes)):
            logits, has = self.logits_nc[rows].flatten(), self.has_nc[rows].flatten()
            yield torch.stack([torch.zeros_like(logits), logits], 1), torch.stack([~has, has], 1)


def score_labels(
    model: DualEncoder,
    item: ZeroShotEvaluation | ClassifyEvaluation,
    found: SplitEmbeddings,
    *,
    split: str,
) -> LabelScores:
    """Score the classes of a split by their prompts or by the model's head.

    A head's rows are matched to the set's classes by name.

    Args:
        found: the split, whose samples may have several classes.
        split: its name, for errors.

    Raises:
        DataError: no sample says its classes, or the head does not know one that occurs.
        ModelError: ``classify``, and the model has no head for several classes a sample.
    """
    several = found.several()
    if several is None or found.told is None or found.classes is None or not len(several[1]):
        raise DataError(
            f"evaluate: {item.kind} needs labels, and no sample of {split} has them; see data.label"
        )
    inputs_nw, has_nc = several
    places_n, classes = found.indices[found.told], found.classes
    with torch.no_grad():
        if isinstance(item, ZeroShotEvaluation):
            rows_cw = rows_for(class_head(model, classes, item.templates), item.reads)
            scale = model.logit_scale.exp()
            logits = [scale * rows @ rows_cw.T for rows in _on(model, inputs_nw, len(classes))]
            return LabelScores(torch.cat(logits).float().cpu(), has_nc, classes, places_n)
        if model.head is None or model.spec.thresholds is None:
            what = "no head" if model.head is None else "a head for one class a sample"
            raise ModelError(
                f"{model.spec.name}: evaluate: classify, data.labels 'many'; the model has {what}"
            )
        own = list(model.spec.classes)
        logits = [model.class_logits(rows) for rows in _on(model, inputs_nw, len(own))]
    thresholds_c = torch.tensor(model.spec.thresholds, dtype=torch.float64)
    has_nc = _renumbered(has_nc, classes, own)
    return LabelScores(torch.cat(logits).float().cpu(), has_nc, own, places_n, thresholds_c)


def label_figures(scores: LabelScores) -> dict[str, float | int]:
    """Figures of classes that do not exclude each other.

    Returns:
        ``map``, the mean over the classes that occur of their average precision; of a head
        ``micro_f1`` and ``macro_f1`` at its thresholds (the latter over the classes that occur),
        ``micro_f1_even`` and ``macro_f1_even`` at a half, and ``ece`` of the decisions; ``top1``,
        the share of the right classes that score above all wrong ones of their sample, and
        ``all_first``, the share of the samples with a class whose classes all do; what guessing
        would reach, ``map_chance`` and ``chance`` (of top1); shares of 1. The counts ``images``,
        ``images_without_class``, ``labels``, ``classes`` and ``classes_seen``.
    """
    has_nc = scores.has_nc
    total, labels_c = len(has_nc), has_nc.sum(dim=0)
    seen_c = labels_c > 0
    if not bool(seen_c.any()):
        raise DataError("nothing to find: no sample of this split has a class")
    precision_c = average_precisions(scores.logits_nc, has_nc)
    figures: dict[str, float | int] = {"map": float(precision_c[seen_c].mean())}
    if scores.thresholds_c is not None:
        for name, thresholds_c in (("", scores.thresholds_c), ("_even", torch.tensor(0.5))):
            told_nc = scores.told_nc(thresholds_c.double())
            micro, f1_c = f1_scores(told_nc, has_nc)
            figures[f"micro_f1{name}"] = micro
            figures[f"macro_f1{name}"] = float(f1_c[seen_c].mean())
        figures["ece"] = gap_of(_decisions(scores))
    figures["top1"] = float((label_ranks(scores) < 1).double().mean())
    figures["all_first"] = float((picture_ranks(scores)[1] < 1).double().mean())
    wrong_n = (~has_nc).sum(dim=1)
    figures["map_chance"] = float(labels_c[seen_c].double().mean() / total)
    figures["chance"] = float((1.0 / (wrong_n + 1.0)).double()[has_nc.nonzero()[:, 0]].mean())
    figures["images"] = total
    figures["images_without_class"] = int((~has_nc.any(dim=1)).sum())
    figures["labels"] = int(labels_c.sum())
    figures["classes"] = len(scores.classes)
    figures["classes_seen"] = int(seen_c.sum())
    return figures


def average_precisions(logits_nc: Tensor, has_nc: Tensor) -> Tensor:
    """Average precision of each class, float64 (C,); NaN of one that no sample has.

    AP = sum over distinct scores, the highest first, of (R_k - R_k-1) P_k: precision and recall
    of all samples that score at least so much, as scikit-learn's ``average_precision_score`` has
    it. Samples of one score count together, so that their order is nothing to gain by.
    """
    found = torch.full((logits_nc.shape[1],), torch.nan, dtype=torch.float64)
    for number in range(logits_nc.shape[1]):
        has_n = has_nc[:, number]
        if not bool(has_n.any()):
            continue
        score_n, order = logits_nc[:, number].sort(descending=True, stable=True)
        last = torch.cat([score_n[1:] != score_n[:-1], torch.tensor([True])]).nonzero()[:, 0]
        hits_k = has_n[order].double().cumsum(0)[last]
        recall_k = hits_k / hits_k[-1]
        gained_k = torch.diff(recall_k, prepend=torch.zeros(1, dtype=torch.float64))
        found[number] = (gained_k * hits_k / (last + 1)).sum()
    return found


def f1_scores(told_nc: Tensor, has_nc: Tensor) -> tuple[float, Tensor]:
    """F1 of all decisions together, and of each class, float64 (C,): 2 TP / (2 TP + FP + FN), and 0
    where nothing is told nor there."""
    hits_c = (told_nc & has_nc).sum(dim=0).double()
    both_c = told_nc.sum(dim=0).double() + has_nc.sum(dim=0).double()
    micro = float(2 * hits_c.sum() / both_c.sum().clamp(min=1.0))
    return micro, 2 * hits_c / both_c.clamp(min=1.0)


def label_ranks(scores: LabelScores) -> Tensor:
    """Of each class that a sample has, sample by sample: how many classes that it has not score at
    least as high, int64 (labels,)."""
    return torch.cat([ranks_bc[has_bc] for ranks_bc, has_bc in _ranks(scores)])


def picture_ranks(scores: LabelScores) -> tuple[Tensor, Tensor]:
    """The samples that have a class, int64 (Q,), and of each how many classes that it has not score
    at least as high as the last of its own, int64 (Q,): one number a sample, as samples are
    independent and the classes of one are not."""
    rows = scores.has_nc.any(dim=1).nonzero()[:, 0]
    worst_n = torch.cat(
        [ranks_bc.masked_fill(~has_bc, -1).amax(dim=1) for ranks_bc, has_bc in _ranks(scores)]
    )
    return rows, worst_n[rows]


def _ranks(scores: LabelScores) -> Iterator[tuple[Tensor, Tensor]]:
    """Of blocks of samples how many classes that a sample has not score at least as high as each
    class, and which it has: int64 and bool (B, C)."""
    for rows in parts_of(scores.logits_nc):
        logits_bc, has_bc = scores.logits_nc[rows], scores.has_nc[rows]
        others_bc = logits_bc.masked_fill(has_bc, torch.inf).sort(dim=1).values
        below_bc = torch.searchsorted(others_bc, logits_bc.contiguous(), right=False)
        yield (~has_bc).sum(dim=1, keepdim=True) - below_bc, has_bc


def _decisions(scores: LabelScores) -> Iterator[tuple[Tensor, Tensor]]:
    """Of blocks of decisions how sure each is, and whether it is right: float64 and bool (B,)."""
    for rows in parts_of(scores.logits_nc):
        sure_bc = scores.logits_nc[rows].double().sigmoid()
        right_bc = (sure_bc >= 0.5) == scores.has_nc[rows]
        yield torch.maximum(sure_bc, 1 - sure_bc).flatten(), right_bc.flatten()


def _on(model: DualEncoder, inputs_nw: Tensor, classes: int) -> Iterator[Tensor]:
    """Blocks of inputs, on the model's device."""
    for rows in blocks_of(len(inputs_nw), classes):
        yield inputs_nw[rows].to(model.device)


def _renumbered(has_nc: Tensor, given: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Columns in the order of ``wanted``; a class that occurs and is not there is a DataError."""
    number = {name: index for index, name in enumerate(wanted)}
    found = torch.zeros(len(has_nc), len(wanted), dtype=torch.bool)
    for place, name in enumerate(given):
        if name in number:
            found[:, number[name]] = has_nc[:, place]
        elif bool(has_nc[:, place].any()):
            raise DataError(f"class {name!r}: unknown to the model's head; {suggest(name, wanted)}")
    return found
