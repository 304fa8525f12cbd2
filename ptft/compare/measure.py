"""What a model is worth on a set: one figure, hits per query, and how far to trust it.

Shape letters: Q queries, C candidates (classes, or the texts or images of a retrieval).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptft.data import SampleSet
from ptft.errors import DataError, RecipeError, suggest
from ptft.evaluate import embed_split, embed_texts
from ptft.evaluate.accuracy import class_ranks
from ptft.evaluate.retrieval import caption_ranks, image_ranks
from ptft.evaluate.run import reads_of
from ptft.model import DualEncoder, class_head, rows_for
from ptft.recipe import (
    EvaluateItem,
    ProbeEvaluation,
    RetrievalEvaluation,
    ZeroShotEvaluation,
    metrics_of,
)

__all__ = ["KnownTexts", "Measured", "default_metric", "measure", "retained_metric"]

KnownTexts = dict[str, Tensor]
"""Caption -> float32 (D,), what one model makes of it: sets of one subject share most captions."""


@dataclass(frozen=True)
class Measured:
    """One evaluation.

    Attributes:
        value: the metric, a share of 1: the mean of ``hits``.
        hits: bool (Q,), in the order of the set.
        logits_qc: scaled scores; own_qc: which candidates are right.
    """

    value: float
    hits: Tensor
    logits_qc: Tensor
    own_qc: Tensor


def default_metric(item: EvaluateItem, wanted: str | None = None, key: str = "evaluate.0") -> str:
    """The metric that is wanted, or the kind's first.

    Raises:
        RecipeError: the evaluation has no such metric.
    """
    if isinstance(item, ProbeEvaluation):
        raise RecipeError(f"{key}.kind: {item.kind!r}; allowed: retrieval, zero_shot, classify")
    known = metrics_of(item)
    if wanted is None:
        return known[0]
    if wanted not in known:
        raise RecipeError(f"compare.metric: {wanted!r}; {suggest(wanted, known)}")
    return wanted


def retained_metric(item: EvaluateItem, key: str) -> str:
    """What is measured of a retained set: the kind's first metric, of a retrieval both ways.

    Twice the queries tell a small loss from chance better.

    Raises:
        RecipeError: the evaluation has no metric to compare by.
    """
    if isinstance(item, RetrievalEvaluation):
        return f"recall@{min(item.ks)}"
    return default_metric(item, key=key)


@torch.no_grad()
def measure(
    model: DualEncoder,
    item: EvaluateItem,
    samples: SampleSet,
    metric: str,
    classes: Sequence[str],
    known: KnownTexts | None = None,
) -> Measured:
    """Run one evaluation of a model on a set.

    Args:
        item: of a recipe; its data and split are ``samples`` already.
        metric: one of :func:`ptft.recipe.metrics_of`, or of :func:`retained_metric`.
        classes: names in the order of the set's numbers, for classes.
        known: by the model; this set's captions are added.

    Raises:
        DataError: the set lacks captions or labels.
    """
    reads = reads_of(item, model)
    found = embed_split(model, samples, batch=item.batch, workers=0, reads=reads)
    scale = model.logit_scale.exp().float().cpu()
    if isinstance(item, RetrievalEvaluation):
        inputs_nw, captions = found.by_picture()
        texts = [caption for own in captions for caption in own]
        if not texts:
            raise DataError("compare: retrieval needs captions, and no image has one")
        texts_md = _embed_unknown(model, texts, {} if known is None else known, batch=item.batch)
        counts = torch.tensor([len(own) for own in captions])
        owner_m = torch.arange(len(counts)).repeat_interleave(counts)
        way, _, k = metric.rpartition("recall@")
        logits = scale * inputs_nw @ texts_md.T
        own = owner_m[None, :] == torch.arange(len(counts))[:, None]
        asked = counts > 0  # an image without a caption is no query, and stays a candidate
        images_n = image_ranks(inputs_nw, texts_md, owner_m)[asked]
        ranks = [images_n] if way != "t2i_" else []
        if way != "i2t_":
            ranks.append(caption_ranks(inputs_nw, texts_md, owner_m))
        logits, own = (logits.T, own.T) if way == "t2i_" else (logits[asked], own[asked])
        hits = torch.cat(ranks) < int(k)
        return Measured(float(hits.double().mean()), hits, logits, own)
    labelled = found.labelled()
    if labelled is None or len(labelled[1]) == 0:
        raise DataError(f"compare: {item.kind} needs labels, and no sample has one")
    inputs_nw, labels_n = labelled
    if isinstance(item, ZeroShotEvaluation):
        rows_cw = rows_for(class_head(model, list(classes), item.templates), reads)
        logits = scale * inputs_nw @ rows_cw.cpu().T
    else:
        assert model.head is not None, "an arm for classes has a head"
        logits = model.class_logits(inputs_nw.to(model.device)).float().cpu()
    hits = class_ranks(logits, labels_n) < 1
    own = torch.nn.functional.one_hot(labels_n, logits.shape[1]).bool()
    return Measured(float(hits.double().mean()), hits, logits, own)


def _embed_unknown(
    model: DualEncoder, texts: Sequence[str], known: KnownTexts, *, batch: int
) -> Tensor:
    """float32 (M, D) of the texts, at least one; those that are not known become so."""
    new = list(dict.fromkeys(text for text in texts if text not in known))
    known |= zip(new, embed_texts(model, new, batch=batch), strict=True)
    return torch.stack([known[text] for text in texts])
