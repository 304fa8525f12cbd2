"""The metric of a comparison: one figure of a model on a set, its hits, and how far to trust it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from ptft.compare.boxes import BoxMeasurement, measure_boxes
from ptft.compare.stats import AnswerRow
from ptft.data import SampleSet
from ptft.errors import RecipeError, suggest
from ptft.evaluate import embed_split, embed_texts
from ptft.evaluate.calibrate import kept_scores, temperature_of
from ptft.evaluate.class_ranks import ClassRanks, rank_labels
from ptft.evaluate.embed import pictures_at_once
from ptft.evaluate.figures import calibration_errors, cut_figures
from ptft.evaluate.label_scores import LabelScores, picture_ranks, score_labels
from ptft.evaluate.ranks import RetrievalRanks, Way, rank_captions
from ptft.evaluate.run import reads_of
from ptft.model import DualEncoder
from ptft.model.spec import ModelSpec
from ptft.recipe import (
    ClassifyEvaluation,
    DataSection,
    DetectEvaluation,
    EvaluateItem,
    ProbeEvaluation,
    RetrievalEvaluation,
    metrics_of,
)
from ptft.recipe.data import has_many_labels

__all__ = [
    "Measurement",
    "TextEmbeddings",
    "answers_of",
    "bits",
    "bits_of",
    "calibrated",
    "default_metric",
    "measure_metric",
    "retained_metric",
]

TextEmbeddings = dict[str, Tensor]
"""Caption -> float32 (D,), its embedding by one model: sets of one subject share most captions."""


_WAYS: dict[str, tuple[Way, ...]] = {"i2t_": ("i2t",), "t2i_": ("t2i",), "": ("i2t", "t2i")}


@dataclass(frozen=True)
class Measurement:
    """One evaluation of a model on a set.

    Attributes:
        ranks: of all queries.
        hits: bool (Q,), whether each query of the metric is found, in the order of the set; those
            of images come before those of captions.
        ways: in which a retrieval's queries were asked; empty for classes.
        k: of a retrieval: how many of the candidates count as found.
        skipped: samples that could not be read.
        scale: of the model's scores, 1/temperature.
        spec: of the model.
        places: int64 (Q,), of the queries in the set, where they are samples of classes.
        classes: names of the classes that ``ranks`` has, in their order; empty for a retrieval.
    """

    ranks: RetrievalRanks | ClassRanks | LabelScores
    hits: Tensor
    ways: tuple[Way, ...]
    skipped: int
    scale: Tensor
    spec: ModelSpec
    places: Tensor | None = None
    classes: Sequence[str] = ()
    k: int = 1

    @property
    def value(self) -> float:
        """The metric: the share of the queries that are found."""
        return float(self.hits.double().mean())

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Scaled scores of blocks of queries (of both ways the images') with every candidate, and
        which candidates are right: float and bool (B, candidates), on the CPU. They are computed
        each time: of many queries they take far more room than the embeddings."""
        if isinstance(self.ranks, RetrievalRanks):
            blocks = self.ranks.blocks(self.ways[0], self.scale)
        else:
            blocks = self.ranks.blocks()
        return ((scores.cpu(), own.cpu()) for scores, own in blocks)

    def scores(self) -> tuple[Tensor, Tensor]:
        """All blocks together: float and bool (Q, candidates)."""
        scores, own = zip(*self.blocks(), strict=True)
        return torch.cat(scores), torch.cat(own)

    @property
    def count(self) -> int:
        """How many scores all blocks have."""
        ranks = self.ranks
        if isinstance(ranks, ClassRanks):
            return len(ranks.labels_n) * ranks.classes
        if isinstance(ranks, LabelScores):
            return 2 * ranks.logits_nc.numel()
        return len(ranks.of(self.ways[0])) * len(
            ranks.t2i_m if self.ways[0] == "i2t" else ranks.captions_n
        )

    @cached_property
    def passed_over(self) -> dict[str, int]:
        """Counts of what was left out or cut, by the names that ``ptft evaluate`` has for them."""
        counts = {"skipped": self.skipped} if self.skipped else {}
        if isinstance(self.ranks, RetrievalRanks):
            counts |= cut_figures(self.ranks.captions, self.spec)
        return counts


def bits(measured: Measurement) -> str:
    """0 or 1 for each query."""
    return "".join(str(int(hit)) for hit in measured.hits.tolist())


def bits_of(measured: Mapping[str, Measurement]) -> dict[str, str]:
    """The same of several sets, by their names."""
    return {name: bits(one) for name, one in measured.items()}


def answers_of(measured: Measurement | BoxMeasurement) -> AnswerRow:
    """What a cell keeps of the queries, in their order."""
    return bits(measured) if isinstance(measured, Measurement) else measured.hits.tolist()


def calibrated(
    val: Measurement | BoxMeasurement, test: Measurement | BoxMeasurement
) -> tuple[float | None, float | None, float | None]:
    """The temperature that fits ``val``, and the calibration error on ``test`` before and after;
    None of boxes, whose scores are no shares of one answer."""
    if isinstance(val, BoxMeasurement) or isinstance(test, BoxMeasurement):
        return None, None, None
    temperature = temperature_of(kept_scores(val.blocks, val.count))
    ece, ece_scaled = calibration_errors(test.blocks(), (1.0, temperature))
    return temperature, ece, ece_scaled


def default_metric(
    item: EvaluateItem, data: DataSection, wanted: str | None = None, key: str = "evaluate.0"
) -> str:
    """Give the metric that is wanted, or else the first one of the evaluation's kind. Of several
    classes a sample it is a mean over samples, whose error is known, and no mAP.

    Args:
        data: of the comparison, for an item without its own.

    Raises:
        RecipeError: the evaluation has no such metric.
    """
    if isinstance(item, ProbeEvaluation):
        allowed = "retrieval, zero_shot, classify, detect"
        raise RecipeError(f"{key}.kind: {item.kind!r}; allowed: {allowed}")
    classed = not isinstance(item, RetrievalEvaluation | DetectEvaluation)
    several = classed and has_many_labels(item.data or data)
    known = ["all_first"] if several else metrics_of(item, data)
    if wanted is None:
        return known[0]
    if wanted not in known:
        raise RecipeError(f"compare.metric: {wanted!r}; {suggest(wanted, known)}")
    return wanted


def retained_metric(item: EvaluateItem, data: DataSection, key: str) -> str:
    """The metric of a retained set: the kind's first, but of a retrieval both ways at once, since
    twice the queries tell a small loss from chance better.

    Raises:
        RecipeError: the evaluation has no metric to compare by.
    """
    if isinstance(item, RetrievalEvaluation):
        return f"recall@{min(item.ks)}"
    if isinstance(item, DetectEvaluation):  # a share of a precision is no mean over queries
        raise RecipeError(f"{key}.kind: {item.kind!r}; allowed: retrieval, zero_shot, classify")
    return default_metric(item, data, key=key)


@torch.no_grad()
def measure_metric(
    model: DualEncoder,
    item: EvaluateItem,
    samples: SampleSet,
    metric: str,
    embedded: TextEmbeddings | None = None,
) -> Measurement | BoxMeasurement:
    """Run one evaluation of a model on a set.

    Args:
        item: of a recipe; its data and split are ``samples`` already.
        metric: as of :func:`default_metric` or of :func:`retained_metric`.
        embedded: captions that this model has embedded before; those of this set are added.

    Raises:
        DataError: the set lacks captions, labels or boxes, or has a class that the head does not
            know.
        ModelError: ``classify`` or ``detect``, and the model has no head for it.
    """
    if isinstance(item, DetectEvaluation):
        return measure_boxes(model, item, samples, metric)
    assert not isinstance(item, ProbeEvaluation), "default_metric refuses it"
    found = embed_split(
        model,
        samples,
        batch=pictures_at_once(model, item.batch),
        workers=0,
        reads=reads_of(item, model),
    )
    ranks: RetrievalRanks | ClassRanks | LabelScores
    ways: tuple[Way, ...] = ()
    k = 1
    places: Tensor | None = None
    classes: Sequence[str] = ()
    if isinstance(item, RetrievalEvaluation):
        embed = partial(_embed, model, {} if embedded is None else embedded, item.batch)
        ranks = rank_captions(model, found, embed, split="the set")
        way, _, within = metric.rpartition("recall@")
        ways, k = _WAYS[way], int(within)
        hits = torch.cat([ranks.of(one) for one in ways]) < k
    elif found.has is not None:
        ranks = score_labels(model, item, found, split="the set")
        rows, worst_q = picture_ranks(ranks)
        hits, places = worst_q < 1, ranks.places_n[rows]
    else:
        ranks = rank_labels(model, item, found, split="the set")
        hits = ranks.ranks_n < 1
        assert found.labels is not None, "else there is nothing to rank"
        places = found.indices[found.labels >= 0]
        own = isinstance(item, ClassifyEvaluation)
        classes = model.spec.classes if own else found.classes or ()
    scale = model.logit_scale.exp()
    skipped = len(found.skipped)
    return Measurement(ranks, hits.cpu(), ways, skipped, scale, model.spec, places, classes, k)


def _embed(
    model: DualEncoder, embedded: TextEmbeddings, batch: int, texts: Sequence[str]
) -> Tensor:
    """Embed texts, at least one, and remember them: float32 (M, D). Known ones are looked up."""
    new = list(dict.fromkeys(text for text in texts if text not in embedded))
    embedded |= zip(new, embed_texts(model, new, batch=batch), strict=True)
    return torch.stack([embedded[text] for text in texts])
