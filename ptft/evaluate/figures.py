"""Figures of an evaluation, each a view of its ranks: recall, accuracy, calibration, and counts."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.evaluate.class_ranks import ClassRanks
from ptft.evaluate.ranks import RetrievalRanks, blocks_of, parts_of
from ptft.model.spec import ModelSpec
from ptft.preprocess import TextTokenizer

__all__ = [
    "BINS",
    "Cut",
    "accuracy_figures",
    "binned_gap",
    "calibration_error",
    "calibration_errors",
    "count_cut",
    "cut_figures",
    "expected_calibration_error",
    "gap_of",
    "recall_figures",
]

BINS = 15  # as in Guo et al. 2017
_AT_ONCE = 1024  # texts that are tokenised at once


def recall_figures(
    ranks: RetrievalRanks, *, ks: list[int], caption_ids_m: Tensor | None = None
) -> dict[str, float | int]:
    """Count recall@k both ways, and what it is to be compared with.

    Args:
        ks: cut-offs; one above the number of candidates is trivially reached, as is its chance.
        caption_ids_m: int64, equal for captions that are the same text; absent: not counted.

    Returns:
        ``i2t_recall@k``, ``t2i_recall@k`` and what drawing blindly would reach
        (``i2t_chance@k``, ``t2i_chance@k``), as shares of 1; ``i2t_median_rank`` and
        ``t2i_median_rank`` (1 is the best); the counts ``images``, ``captions``,
        ``images_without_caption`` (no queries) and ``duplicate_captions``, which have an equal
        caption elsewhere: they bound the recall.
    """
    images, texts = len(ranks.captions_n), len(ranks.t2i_m)
    asked_n = ranks.captions_n > 0
    figures: dict[str, float | int] = {}
    for k in ks:
        figures[f"i2t_recall@{k}"] = float((ranks.i2t_q < k).double().mean())
    for k in ks:
        figures[f"t2i_recall@{k}"] = float((ranks.t2i_m < k).double().mean())
    for k in ks:
        figures[f"i2t_chance@{k}"] = _chance(ranks.captions_n[asked_n], texts, k)
        figures[f"t2i_chance@{k}"] = min(1.0, k / images)
    figures["i2t_median_rank"] = _median(ranks.i2t_q) + 1
    figures["t2i_median_rank"] = _median(ranks.t2i_m) + 1
    figures["images"] = images
    figures["captions"] = texts
    figures["images_without_caption"] = int((~asked_n).sum())
    if caption_ids_m is not None:
        _, inverse_m, counts = torch.unique(caption_ids_m, return_inverse=True, return_counts=True)
        figures["duplicate_captions"] = int((counts[inverse_m] > 1).sum())
    return figures


class Cut(NamedTuple):
    """How many texts were not read to their end.

    Attributes:
        early: end at a special token that they spell out, such as ``<end_of_text>``; the first one.
        long: have more tokens than the model reads; the first one.
    """

    early: tuple[int, str]
    long: tuple[int, str]


def count_cut(texts: Sequence[str], tokenizer: TextTokenizer, *, stops: bool) -> Cut:
    """Count the texts that a tokenizer does not read to their end.

    Args:
        stops: the text tower reads nothing behind the first end mark (``ModelSpec.text_stops``).
    """
    early: list[str] = []
    long: list[str] = []
    for start in range(0, len(texts), _AT_ONCE):
        part = list(texts[start : start + _AT_ONCE])
        tokens = tokenizer(part)
        if stops:
            early += [part[int(i)] for i in np.flatnonzero(tokenizer.ends_early(tokens))]
        long += [part[int(i)] for i in np.flatnonzero(tokenizer.too_long(part, tokens))]
    return Cut((len(early), early[0] if early else ""), (len(long), long[0] if long else ""))


def cut_figures(captions: Sequence[str], spec: ModelSpec) -> dict[str, int]:
    """Count captions that a model does not read to their end, where there are any:
    ``captions_ended_early``, at a special token that they spell out, and ``captions_too_long``."""
    cut = count_cut(captions, spec.tokenizer, stops=spec.text_stops)
    counts = {"captions_ended_early": cut.early[0], "captions_too_long": cut.long[0]}
    return {name: count for name, count in counts.items() if count}


def accuracy_figures(ranks: ClassRanks) -> dict[str, float | int]:
    """Count accuracy and calibration of a classifier's scores.

    Returns:
        ``top1``, ``top5`` (with more than five classes), ``mean_per_class`` (over the classes that
        occur), ``ece`` and ``chance`` (1/C) as shares of 1; the counts ``images``, ``classes`` and
        ``classes_seen``.
    """
    total, classes = len(ranks.labels_n), ranks.classes
    right_n = (ranks.ranks_n < 1).double()
    figures: dict[str, float | int] = {"top1": float(right_n.mean())}
    if classes > 5:
        figures["top5"] = float((ranks.ranks_n < 5).double().mean())
    seen_c = torch.bincount(ranks.labels_n, minlength=classes).double()
    right_c = torch.zeros_like(seen_c).index_add_(0, ranks.labels_n, right_n)
    figures["mean_per_class"] = float((right_c[seen_c > 0] / seen_c[seen_c > 0]).mean())
    figures["ece"] = binned_gap(ranks.sure_n, ranks.right_n)
    figures["chance"] = 1.0 / classes
    figures["images"] = total
    figures["classes"] = classes
    figures["classes_seen"] = int((seen_c > 0).sum())
    return figures


def calibration_error(logits_nc: Tensor, labels_n: Tensor) -> float:
    """:func:`expected_calibration_error` where each sample has one right class."""
    classes = logits_nc.shape[1]
    return calibration_errors(
        (logits_nc[rows], F.one_hot(labels_n[rows], classes).bool())
        for rows in blocks_of(len(logits_nc), classes)
    )[0]


def expected_calibration_error(logits_nc: Tensor, own_nc: Tensor) -> float:
    """Compute the expected calibration error over equal-width bins of confidence, a share of 1.

    It is the mean over samples of |accuracy - confidence| of their bin. The bins are (low, high];
    the confidence is the largest softmax probability (Guo et al. 2017, On calibration of modern
    neural networks).

    Args:
        logits_nc: scores, scaled as the softmax over candidates wants them.
        own_nc: bool, which candidates are right; several where an image has several captions.
    """
    blocks = blocks_of(*logits_nc.shape)
    return calibration_errors((logits_nc[rows], own_nc[rows]) for rows in blocks)[0]


def calibration_errors(
    blocks: Iterable[tuple[Tensor, Tensor]], temperatures: Sequence[float] = (1.0,)
) -> list[float]:
    """:func:`expected_calibration_error` of scores that come by blocks of samples, divided by each
    of some temperatures."""
    sure: list[list[Tensor]] = [[] for _ in temperatures]
    right: list[list[Tensor]] = [[] for _ in temperatures]
    for logits_bc, own_bc in blocks:
        for place, temperature in enumerate(temperatures):
            for part in parts_of(logits_bc):
                scaled_bc = logits_bc[part] / temperature
                confidence_b, predicted_b = scaled_bc.double().softmax(dim=1).max(dim=1)
                sure[place].append(confidence_b)
                right[place].append(own_bc[part].gather(1, predicted_b[:, None])[:, 0])
    return [binned_gap(torch.cat(s), torch.cat(r)) for s, r in zip(sure, right, strict=True)]


def binned_gap(sure_n: Tensor, right_n: Tensor) -> float:
    """Mean of |accuracy - confidence| of each sample's bin."""
    return gap_of([(sure_n, right_n)])


def gap_of(blocks: Iterable[tuple[Tensor, Tensor]]) -> float:
    """:func:`binned_gap` of samples that come by blocks."""
    gap, total = torch.zeros(BINS, dtype=torch.float64), 0
    for sure_b, right_b in blocks:
        bin_b = (sure_b * BINS).ceil().long().clamp(1, BINS) - 1
        gap = gap.to(sure_b.device)
        gap.index_add_(0, bin_b, right_b.double() - sure_b)
        total += len(sure_b)
    return float(gap.abs().sum() / total)


def _chance(captions_n: Tensor, total: int, k: int) -> float:
    """Mean probability that k of ``total`` texts, drawn blindly, hold one of an image's own."""
    chance = 0.0
    counts, images = torch.unique(captions_n, return_counts=True)
    for own, number in zip(counts.tolist(), images.tolist(), strict=True):
        missed = 1.0  # C(total - own, k) / C(total, k), as a product that cannot overflow
        for drawn in range(min(k, total)):
            missed *= max(0, total - own - drawn) / (total - drawn)
        chance += number * (1.0 - missed)
    return chance / len(captions_n)


def _median(ranks: Tensor) -> float:
    """The middle rank; the mean of the two middle ones where their number is even."""
    return float(ranks.double().quantile(0.5)) if len(ranks) < 1 << 24 else float(ranks.median())
