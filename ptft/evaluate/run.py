"""The evaluations of a recipe: each item's figures by its name."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ptft.data import SampleSet, kept_open, open_split
from ptft.data.hashing import text_id
from ptft.data.reading.loader import Workers
from ptft.data.sample import Part, with_labels
from ptft.evaluate.class_answers import ClassAnswers
from ptft.evaluate.class_ranks import ClassRanks, rank_labels, rank_probe
from ptft.evaluate.detect import Detections, detect_figures, detect_split
from ptft.evaluate.embed import SplitEmbeddings, embed_split, embed_texts
from ptft.evaluate.figures import accuracy_figures, cut_figures, recall_figures
from ptft.evaluate.label_answers import LabelAnswers
from ptft.evaluate.label_scores import label_figures, label_ranks, score_labels
from ptft.evaluate.ranks import rank_captions
from ptft.model import DualEncoder
from ptft.recipe import (
    ClassifyEvaluation,
    DataSection,
    DetectEvaluation,
    EvaluateItem,
    ProbeEvaluation,
    Reads,
    RetrievalEvaluation,
    ZeroShotEvaluation,
)
from ptft.recipe.check import Split
from ptft.speech import ProgressCallback, Tell

__all__ = ["EmbeddedSplits", "Figures", "evaluate", "reads_of"]

Figures = dict[str, Any]
"""Numbers by name, and ``skipped_samples``, names of samples that could not be read."""

EmbeddedSplits = dict[tuple[str, str, str], SplitEmbeddings]
"""Embeddings by data section, split, and what is read of a sample."""

_NAMED = 20  # skipped samples that a result names


@kept_open()
@torch.no_grad()
def evaluate(
    model: DualEncoder,
    items: Sequence[EvaluateItem],
    data: DataSection,
    *,
    seed: int,
    device: torch.device | str | None = None,
    workers: Workers = "auto",
    progress: ProgressCallback | None = None,
    embedded: EmbeddedSplits | None = None,
    tell: Tell | None = None,
    keep: dict[str, tuple[SampleSet, Detections]] | None = None,
    classed: dict[str, ClassAnswers | LabelAnswers] | None = None,
) -> dict[str, Figures]:
    """Run a recipe's evaluations of a model.

    A split is embedded once, however many items read it. The model stays on ``device`` and in the
    mode (training or not) that it was in; no random number of torch's is drawn.

    Args:
        items: the recipe's ``evaluate`` list.
        data: the recipe's own data section, for items without one.
        seed: of the recipe: subsets of data, and the fifth that a probe holds out.
        device: absent: a GPU where torch sees one.
        workers: processes that read samples; they change no result.
        embedded: what this image tower has embedded before, which it does not embed again; splits
            that are new to it are added.
        tell: called with each note on what a split joins, passes over or reads as something else.
        keep: what a detector found is put there, by the item's name, with the split.
        classed: what is said of every picture of classes is put there, by the item's name.

    Returns:
        name of the item (or its kind) -> figures: shares of 1, ranks and counts, all JSON numbers;
        ``skipped`` counts the samples that could not be read, ``skipped_samples`` names the first.

    Raises:
        DataError: the data lacks what an item needs (captions, labels), or no sample can be read.
        ModelError: a ``classify`` item, and the model has no head; or embeddings are not finite.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    splits = _Splits(
        model, data, seed, workers, progress, {} if embedded is None else embedded, tell
    )
    results: dict[str, Figures] = {}
    for item in items:
        name = item.name or item.kind
        if isinstance(item, DetectEvaluation):
            samples, found = splits.detect(item)
            if keep is not None:
                keep[name] = samples, found
            figures, skipped = detect_figures(found), found.skipped
        else:
            figures, answers = _figures(splits, item)
            if classed is not None and answers is not None:
                classed[name] = answers
            skipped = splits.get(item).skipped
        figures["skipped"] = len(skipped)
        if skipped:
            figures["skipped_samples"] = [skip.name for skip in skipped[:_NAMED]]
        results[name] = figures
    return results


def reads_of(item: EvaluateItem, model: DualEncoder) -> Reads:
    """Say what an evaluation reads of each sample, apart from captions that are queries."""
    match item:
        case ZeroShotEvaluation() | ProbeEvaluation():
            return item.reads
        case ClassifyEvaluation():
            return model.spec.reads
        case RetrievalEvaluation() | DetectEvaluation():
            return "image"


class _Splits:
    """Embeddings by data section and split, each made when it is first asked for."""

    def __init__(
        self,
        model: DualEncoder,
        data: DataSection,
        seed: int,
        workers: Workers,
        progress: ProgressCallback | None,
        embedded: EmbeddedSplits,
        tell: Tell | None,
    ) -> None:
        self.model = model
        self.data = data
        self.seed = seed
        self.workers = workers
        self.progress = progress
        self.tell = tell
        self._told: set[str] = set()
        self._images = embedded
        self._others: EmbeddedSplits = {}

    def get(self, item: EvaluateItem, split: Split | None = None) -> SplitEmbeddings:
        """Embed the item's data once; its own split unless another is named."""
        section, split = item.data or self.data, split or item.split
        reads = reads_of(item, self.model)
        embedded = self._images if reads == "image" else self._others
        key: tuple[str, str, str] = (section.model_dump_json(by_alias=True), split, reads)
        classed = not isinstance(item, RetrievalEvaluation)
        asked = (*key[:2], f"{reads}, with a class") if classed else key
        if asked not in embedded:
            place = "evaluate.data" if item.data else "data"
            whole = open_split(section, split, seed=self.seed, key=place)
            samples, bare = with_labels(whole) if classed else (whole, [])
            self._say(f"{place}.{split}", [*whole.notes(1), *bare])
            if samples is whole and key in embedded:
                embedded[asked] = embedded[key]
                return embedded[key]
            found = embed_split(
                self.model,
                samples,
                batch=item.batch,
                workers=self.workers,
                what=f"{split} images" if reads == "image" else f"{split} samples",
                progress=self.progress,
                reads=reads,
            )
            if isinstance(samples, Part) and samples is not whole:  # numbered as in the whole
                numbers = torch.from_numpy(samples.indices).to(found.indices.device)
                found = replace(found, indices=numbers[found.indices])
            else:
                embedded[key] = found
            embedded[asked] = found
        return embedded[asked]

    def detect(self, item: DetectEvaluation) -> tuple[SampleSet, Detections]:
        """The item's data, and what the model's detector finds there."""
        section, place = item.data or self.data, "evaluate.data" if item.data else "data"
        samples = open_split(section, item.split, seed=self.seed, key=place)
        self._say(f"{place}.{item.split}", samples.notes(1))
        found = detect_split(
            self.model,
            samples,
            item,
            workers=self.workers,
            what=f"{item.split} pictures",
            progress=self.progress,
        )
        return samples, found

    def _say(self, where: str, notes: Sequence[str]) -> None:
        for note in notes:
            line = f"{where}: {note}"
            if self.tell is not None and line not in self._told:
                self._told.add(line)
                self.tell(line)


def _by_names(model: DualEncoder, item: ClassifyEvaluation, found: SplitEmbeddings) -> float:
    """What the names of the head's classes find of the same pictures, by the text tower: tuning
    taught the head, and may have left the texts behind."""
    ranks = rank_labels(model, _named(model, item), found, split=item.split)
    return float((ranks.ranks_n < 1).double().mean())


def _named(model: DualEncoder, item: ClassifyEvaluation) -> ZeroShotEvaluation:
    templates = list(model.spec.templates) or ZeroShotEvaluation().templates
    return ZeroShotEvaluation(templates=templates, batch=item.batch)


def _figures(
    splits: _Splits, item: EvaluateItem
) -> tuple[Figures, ClassAnswers | LabelAnswers | None]:
    """Figures, and the answers where the item is about classes."""
    assert not isinstance(item, DetectEvaluation), "it embeds nothing"
    model, found = splits.model, splits.get(item)
    if isinstance(item, RetrievalEvaluation):
        embed = partial(embed_texts, model, batch=item.batch, progress=splits.progress)
        queries = rank_captions(model, found, embed, split=item.split)
        ids_m = torch.tensor([text_id(text) for text in queries.captions]).to(model.device)
        recall = recall_figures(queries, ks=item.ks, caption_ids_m=ids_m)
        return {**recall, **cut_figures(queries.captions, model.spec)}, None
    if found.has is not None:
        assert not isinstance(item, ProbeEvaluation), "the schema refuses it"
        scores = score_labels(model, item, found, split=item.split)
        figures = label_figures(scores)
        if isinstance(item, ClassifyEvaluation) and model.spec.reads == "image":
            named = score_labels(model, _named(model, item), found, split=item.split)
            figures["zero_shot_top1"] = float((label_ranks(named) < 1).double().mean())
        return {**figures}, LabelAnswers(scores)
    if not isinstance(item, ProbeEvaluation):
        ranks = rank_labels(model, item, found, split=item.split)
        figures = accuracy_figures(ranks)
        if isinstance(item, ClassifyEvaluation) and model.spec.reads == "image":
            figures["zero_shot_top1"] = _by_names(model, item, found)
        own = isinstance(item, ClassifyEvaluation)
        classes = model.spec.classes if own else found.classes
        return {**figures}, _answers(ranks, found, classes)
    train = splits.get(item, "train")
    ranks, probe = rank_probe(model, item, found, train, seed=splits.seed, split=item.split)
    figures = {
        **accuracy_figures(ranks),
        "c": probe.c,
        "train_images": probe.samples,
        "train_skipped": len(train.skipped),
    }
    return figures, _answers(ranks, found, train.classes)


def _answers(
    ranks: ClassRanks, found: SplitEmbeddings, classes: Sequence[str] | None
) -> ClassAnswers:
    assert found.labels is not None and classes is not None, "else there is nothing to rank"
    return ClassAnswers.of(ranks, found.indices[found.labels >= 0], classes)
