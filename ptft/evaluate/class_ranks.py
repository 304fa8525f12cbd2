"""The rank of the right class, sample by sample, from scores that are computed by blocks.

Conventions are those of ``ptft.evaluate.ranks``; shape letters: N samples, B of them, C classes, W
width of what is scored.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.errors import DataError, ModelError, suggest
from ptft.evaluate.embed import SplitEmbeddings
from ptft.evaluate.probe import LinearProbe, choose_c, fit_probe
from ptft.evaluate.ranks import blocks_of, parts_of
from ptft.model import DualEncoder, class_head, rows_for
from ptft.recipe import (
    ClassifyEvaluation,
    EvaluateItem,
    ProbeEvaluation,
    ZeroShotEvaluation,
)

__all__ = [
    "ClassRanks",
    "Score",
    "class_ranks",
    "rank_blocks",
    "rank_classes",
    "rank_labels",
    "rank_probe",
]

Score = Callable[[Tensor], Tensor]
"""What a class head or a probe reads (B, W) -> its logits (B, C)."""


@dataclass(frozen=True)
class ClassRanks:
    """A classification, its scores computed a block of samples at a time.

    Attributes:
        ranks_n: int64 (N,), how many wrong classes score at least as high as the right one.
        sure_n: float64 (N,), the largest probability of each sample.
        said_n: int64 (N,), the class of that probability; of several a wrong one, as by its rank.
        labels_n: int64 (N,), the right classes.
        classes: C.
        inputs_nw: what is scored.
        score: inputs (B, W) -> logits (B, C), scaled as the model's softmax wants them.
    """

    ranks_n: Tensor
    sure_n: Tensor
    said_n: Tensor
    labels_n: Tensor
    classes: int
    inputs_nw: Tensor
    score: Score

    @property
    def right_n(self) -> Tensor:
        """bool (N,), whether the class that is said is the right one."""
        return self.said_n == self.labels_n

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (B, C) of blocks of samples, and which class is right: bool (B, C)."""
        for rows in blocks_of(len(self.labels_n), self.classes):
            with torch.no_grad():
                logits = self.score(self.inputs_nw[rows])
            yield logits, F.one_hot(self.labels_n[rows], self.classes).bool()


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
        ModelError: ``classify``, and the model has no head, or one for several classes a sample.
    """
    if isinstance(item, ClassifyEvaluation) and model.head is None:
        raise ModelError(f"{model.spec.name}: evaluate: classify needs a head; this model has none")
    if isinstance(item, ClassifyEvaluation) and model.spec.thresholds is not None:
        raise ModelError(
            f"{model.spec.name}: evaluate: classify, data.labels 'one'; the model has a head for "
            "several classes a sample"
        )
    inputs_nw, labels_n, classes = _labelled(model, item, found, split)
    if isinstance(item, ZeroShotEvaluation):
        rows_cw = rows_for(class_head(model, classes, item.templates), item.reads)
        scale = model.logit_scale.exp()
        return rank_blocks(
            lambda rows_bw: scale * rows_bw @ rows_cw.T, inputs_nw, labels_n, len(classes)
        )
    labels_n = _renumbered(labels_n, classes, model.spec.classes, "the model's head")
    head, scale = model.head, model.logit_scale.exp()  # not the model, which may be let go
    assert head is not None
    count = len(model.spec.classes)
    return rank_blocks(lambda rows_bw: head.logits(rows_bw, scale), inputs_nw, labels_n, count)


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
    return rank_blocks(probe.logits, inputs_nw, labels_n, len(classes)), probe


def rank_blocks(score: Score, inputs_nw: Tensor, labels_n: Tensor, classes: int) -> ClassRanks:
    """Rank the right class of each sample by its logits, a block of samples at a time.

    Args:
        score: inputs (B, W) -> logits (B, C), scaled as the model's softmax wants them.
        inputs_nw: of all samples, on the device of ``labels_n``.
        labels_n: int64, the right classes.
        classes: C.

    Raises:
        DataError: there is no sample, or a label is not a class.
    """
    if len(labels_n) == 0:
        raise DataError("nothing to classify: no sample of this split has a label")
    if int(labels_n.min()) < 0 or int(labels_n.max()) >= classes:
        raise DataError(
            f"labels run from {int(labels_n.min())} to {int(labels_n.max())}; "
            f"allowed with {classes} classes: 0 to {classes - 1}"
        )
    # room for all at once: small pieces that stay between large ones that go keep their memory
    ranks_n, said_n = torch.empty_like(labels_n), torch.empty_like(labels_n)
    sure_n = torch.empty(len(labels_n), dtype=torch.float64, device=labels_n.device)
    for rows in blocks_of(len(labels_n), classes):
        with torch.no_grad():
            logits_bc, labels_b = score(inputs_nw[rows]), labels_n[rows]
        for part in parts_of(logits_bc):
            own = slice(rows.start + part.start, rows.start + part.stop)
            ranks_n[own] = class_ranks(logits_bc[part], labels_b[part])
            sure_n[own], said_n[own] = logits_bc[part].double().softmax(dim=1).max(dim=1)
            said_n[own] = _said(logits_bc[part], said_n[own], labels_b[part], ranks_n[own])
        del logits_bc  # before there is another
    return ClassRanks(ranks_n, sure_n, said_n, labels_n, classes, inputs_nw, score)


def _said(logits_nc: Tensor, said_n: Tensor, labels_n: Tensor, ranks_n: Tensor) -> Tensor:
    """The class of the highest logit, of equals a wrong one: int64 (N,). A right answer that is
    none by its rank would be one in what is told of each class."""
    tied_n = (said_n == labels_n) & (ranks_n > 0)
    if not bool(tied_n.any()):
        return said_n
    rows = tied_n.nonzero()[:, 0]
    others_nc = logits_nc[rows].clone()
    others_nc[torch.arange(len(rows)), labels_n[rows]] = -torch.inf
    return said_n.index_put((rows,), others_nc.argmax(dim=1))


def class_ranks(logits_nc: Tensor, labels_n: Tensor) -> Tensor:
    """Count the wrong classes that score at least as high as the right one: int64 (N,)."""
    own_n = logits_nc.gather(1, labels_n[:, None])
    return (~(logits_nc < own_n)).sum(dim=1) - 1


def rank_classes(logits_nc: Tensor, labels_n: Tensor) -> ClassRanks:
    """:func:`rank_blocks` of logits that are there already."""
    return rank_blocks(lambda rows_bc: rows_bc, logits_nc, labels_n, logits_nc.shape[1])


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
