"""The evaluations of a recipe: each item's figures by its name."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ptft.data import open_split
from ptft.data.checks.cut import count_cut
from ptft.data.hashing import text_id
from ptft.data.reading.loader import Workers
from ptft.errors import DataError, ModelError, suggest
from ptft.evaluate.accuracy import accuracy_figures
from ptft.evaluate.embed import Progress, SplitEmbeddings, embed_split, embed_texts
from ptft.evaluate.probe import choose_c, fit_probe
from ptft.evaluate.retrieval import retrieval_figures
from ptft.model import DualEncoder, class_head, rows_for
from ptft.recipe import (
    ClassifyEvaluation,
    DataSection,
    EvaluateItem,
    ProbeEvaluation,
    Reads,
    RetrievalEvaluation,
    ZeroShotEvaluation,
)

__all__ = ["Figures", "Known", "evaluate", "reads_of"]

Figures = dict[str, Any]
"""Numbers by name, and ``skipped_samples``, names of samples that could not be read."""

Split = Literal["train", "val", "test"]

Known = dict[tuple[str, str, Reads], SplitEmbeddings]
"""By data section, split, and what is read of a sample."""

Tell = Callable[[str], None]

_NAMED = 20  # skipped samples that a result names


@torch.no_grad()
def evaluate(
    model: DualEncoder,
    items: Sequence[EvaluateItem],
    data: DataSection,
    *,
    seed: int,
    device: torch.device | str | None = None,
    workers: Workers = "auto",
    progress: Progress | None = None,
    known: Known | None = None,
    tell: Tell | None = None,
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
        known: splits whose pictures this image tower has embedded, by data section and split, which
            are not embedded again; what is added stays in it.
        tell: told what of a split was joined, passed over or taken for something, once each.

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
    splits = _Splits(model, data, seed, workers, progress, {} if known is None else known, tell)
    results: dict[str, Figures] = {}
    for item in items:
        name = item.name or item.kind
        match item:
            case RetrievalEvaluation():
                figures = _retrieval(splits, item)
            case ZeroShotEvaluation():
                figures = _zero_shot(splits, item)
            case ProbeEvaluation():
                figures = _probe(splits, item)
            case ClassifyEvaluation():
                figures = _classify(splits, item)
        skipped = splits.get(item).skipped
        figures["skipped"] = len(skipped)
        if skipped:
            figures["skipped_samples"] = [skip.name for skip in skipped[:_NAMED]]
        results[name] = figures
    return results


def reads_of(item: EvaluateItem, model: DualEncoder) -> Reads:
    """What an evaluation reads of each sample; captions that are queries come apart from it."""
    match item:
        case ZeroShotEvaluation() | ProbeEvaluation():
            return item.reads
        case ClassifyEvaluation():
            return model.spec.reads
        case RetrievalEvaluation():
            return "image"


class _Splits:
    """Embeddings by data section and split, each made when it is first asked for."""

    def __init__(
        self,
        model: DualEncoder,
        data: DataSection,
        seed: int,
        workers: Workers,
        progress: Progress | None,
        known: Known,
        tell: Tell | None,
    ) -> None:
        self.model = model
        self.data = data
        self.seed = seed
        self.workers = workers
        self.progress = progress
        self.tell = tell
        self._told: set[str] = set()
        self._pictures = known
        self._known: Known = {}

    def get(self, item: EvaluateItem, split: Split | None = None) -> SplitEmbeddings:
        """Of the item's data, and of its split unless another is named."""
        section, split = item.data or self.data, split or item.split
        reads = reads_of(item, self.model)
        known = self._pictures if reads == "image" else self._known
        key = (section.model_dump_json(by_alias=True), split, reads)
        if key not in known:
            place = "evaluate.data" if item.data else "data"
            samples = open_split(section, split, seed=self.seed, key=place)
            self._say(f"{place}.{split}", samples.notes(1))
            known[key] = embed_split(
                self.model,
                samples,
                batch=item.batch,
                workers=self.workers,
                what=f"{split} images" if reads == "image" else f"{split} samples",
                progress=self.progress,
                reads=reads,
            )
        return known[key]

    def _say(self, where: str, notes: Sequence[str]) -> None:
        for note in notes:
            line = f"{where}: {note}"
            if self.tell is not None and line not in self._told:
                self._told.add(line)
                self.tell(line)

    def labelled(
        self, item: EvaluateItem, split: Split | None = None
    ) -> tuple[Tensor, Tensor, list[str]]:
        """Embeddings (N, W), labels (N,) and class names, on the model's device.

        Raises:
            DataError: the data has no classes, or no sample of the split has a label.
        """
        found = self.get(item, split)
        labelled = found.labelled()
        if labelled is None or found.classes is None or len(labelled[1]) == 0:
            raise DataError(
                f"evaluate: {item.kind} needs labels, and no sample of {split or item.split} has "
                "one; see data.label"
            )
        inputs, labels = labelled
        return inputs.to(self.model.device), labels.to(self.model.device), found.classes


def _retrieval(splits: _Splits, item: RetrievalEvaluation) -> Figures:
    model = splits.model
    inputs_nw, captions = splits.get(item).by_picture()
    texts = [caption for own in captions for caption in own]
    if not texts:
        raise DataError(
            f"evaluate: retrieval needs captions, and no image of {item.split} has one; "
            "see data.captions"
        )
    texts_md = embed_texts(model, texts, batch=item.batch, progress=splits.progress)
    counts = torch.tensor([len(own) for own in captions])
    owner_m = torch.arange(len(counts)).repeat_interleave(counts)
    ids_m = torch.tensor([text_id(text) for text in texts])
    figures: Figures = {
        **retrieval_figures(
            inputs_nw.to(model.device),
            texts_md.to(model.device),
            owner_m.to(model.device),
            ks=item.ks,
            caption_ids_m=ids_m.to(model.device),
        )
    }
    cut = count_cut(texts, model.spec.tokenizer, stops=model.spec.text_stops)
    if cut.early[0]:
        figures["captions_ended_early"] = cut.early[0]
    if cut.long[0]:
        figures["captions_too_long"] = cut.long[0]
    return figures


def _zero_shot(splits: _Splits, item: ZeroShotEvaluation) -> Figures:
    """Nearest class by the mean of its prompts' embeddings (Radford et al. 2021, section 3.1)."""
    inputs_nw, labels_n, classes = splits.labelled(item)
    rows_cw = rows_for(class_head(splits.model, classes, item.templates), item.reads)
    scale = splits.model.logit_scale.exp()
    return {**accuracy_figures(scale * inputs_nw @ rows_cw.T, labels_n)}


def _classify(splits: _Splits, item: ClassifyEvaluation) -> Figures:
    """The model's own head; labels are matched to its rows by the names of their classes."""
    model = splits.model
    if model.head is None:
        raise ModelError(f"{model.spec.name}: evaluate: classify needs a head; this model has none")
    inputs_nw, labels_n, classes = splits.labelled(item)
    labels_n = _renumbered(labels_n, classes, model.spec.classes, "the model's head")
    return {**accuracy_figures(model.class_logits(inputs_nw), labels_n)}


def _probe(splits: _Splits, item: ProbeEvaluation) -> Figures:
    train_nd, train_n, classes = splits.labelled(item, "train")
    inputs_nw, labels_n, given = splits.labelled(item)
    labels_n = _renumbered(labels_n, given, classes, "train")
    c = item.c
    if c is None:
        c = choose_c(train_nd, train_n, classes=len(classes), seed=splits.seed)
    probe = fit_probe(train_nd, train_n, classes=len(classes), c=c)
    figures: Figures = {**accuracy_figures(probe.logits(inputs_nw), labels_n)}
    figures["c"] = c
    figures["train_images"] = len(train_n)
    figures["train_skipped"] = len(splits.get(item, "train").skipped)
    return figures


def _renumbered(
    labels_n: Tensor, given: Sequence[str], wanted: Sequence[str], where: str
) -> Tensor:
    """Labels by the numbers that ``wanted`` gives to their names.

    Raises:
        DataError: a class that occurs is unknown there.
    """
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
