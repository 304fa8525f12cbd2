"""Tip-Adapter: few pictures remembered as a cache beside the class head (Zhang et al. 2022).

Keys are the pictures' embeddings, values their classes: a picture's logits are the head's, plus
alpha times the sum over the keys of a class of exp(-beta * (1 - f . key)). Nothing is trained.
Alpha and beta are numbers of the recipe, or chosen on validation over a grid.

The grid is even in logarithms where the authors' is even in the numbers, since what fits depends on
the scale of a model's logits and on how far apart its embeddings lie. Where several pairs are right
equally often, as is common on few samples, the one under which the right classes are likeliest is
taken. Pictures are remembered as an evaluation sees them, where the authors average ten random
crops of each.

Shape letters: K keys, V validation images, C classes, D width of the joint space.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.data import SampleSet
from ptft.data.reading.loader import Workers
from ptft.errors import DataError
from ptft.evaluate.embed import embed_split
from ptft.model import DualEncoder
from ptft.model.classifier import Classifier
from ptft.recipe import TipAdapterAdapt

__all__ = ["ALPHAS", "BETAS", "add_cache", "choose_strength"]

ALPHAS = tuple(10.0 ** (step / 5) for step in range(-10, 11))  # 0.01 to 100
BETAS = tuple(2.0 ** (step / 2) for step in range(-2, 13))  # 0.5 to 64

_BATCH = 256  # images at once, as an evaluation has it unless told otherwise


@torch.no_grad()
def add_cache(
    model: DualEncoder,
    section: TipAdapterAdapt,
    samples: SampleSet,
    val: SampleSet | None,
    *,
    workers: Workers = "auto",
) -> str:
    """Put a cache of a training set beside the model's head.

    Args:
        model: with a head, on the device to run on; its mode and other weights stay.
        samples: what is remembered; those without a label are left out.
        val: what ``auto`` is chosen on; None where the section has numbers.
        workers: processes that read; they change no result.

    Returns:
        What was chosen, for people.

    Raises:
        DataError: no image has a label, or none can be read.
        ModelError: an embedding is not finite.
    """
    assert model.head is not None
    keys_kd, labels_k = _labelled(model, samples, "train", workers)
    alpha = 1.0 if section.alpha == "auto" else section.alpha
    beta = 1.0 if section.beta == "auto" else section.beta
    model.head.remember(keys_kd, labels_k, alpha=alpha, beta=beta)
    said = ""
    if val is not None:
        images_vd, labels_v = _labelled(model, val, "val", workers)
        strength = choose_strength(
            model.head,
            model.logit_scale.exp(),
            images_vd.to(model.device),
            labels_v.to(model.device),
            alphas=ALPHAS if section.alpha == "auto" else (alpha,),
            betas=BETAS if section.beta == "auto" else (beta,),
        )
        model.head.remember(keys_kd, labels_k, alpha=strength.alpha, beta=strength.beta)
        alpha, beta = strength.alpha, strength.beta
        said = f", chosen on {len(labels_v):,} pictures of val, {strength.top1:.1%} right"
    return f"a cache of {len(labels_k):,} pictures: alpha {alpha:.3g}, beta {beta:.3g}{said}"


@dataclass(frozen=True)
class Strength:
    """Alpha and beta of a cache, and the share of validation that is right with them."""

    alpha: float
    beta: float
    top1: float


def choose_strength(
    head: Classifier,
    scale: Tensor,
    images_vd: Tensor,
    labels_v: Tensor,
    *,
    alphas: tuple[float, ...] = ALPHAS,
    betas: tuple[float, ...] = BETAS,
) -> Strength:
    """Choose the pair of a grid with the highest accuracy, then the lowest cross-entropy.

    Args:
        head: with a cache; its own alpha is left, its beta is set to the pair's.
        scale: (1,), 1/temperature of the model.
        images_vd: L2-normalised (V, D); labels_v: int64 (V,).
    """
    linear_vc = head.linear(images_vd, scale).double()
    best: tuple[tuple[float, float], Strength] | None = None
    for beta in betas:
        assert head.beta is not None
        head.beta.fill_(beta)
        votes_vc = torch.cat([head.votes(part) for part in images_vd.split(_BATCH)]).double()
        for alpha in alphas:
            logits_vc = linear_vc + alpha * votes_vc
            top1 = float((logits_vc.argmax(1) == labels_v).double().mean())
            rank = (top1, -float(F.cross_entropy(logits_vc, labels_v)))
            if best is None or rank > best[0]:
                best = (rank, Strength(alpha, beta, top1))
    assert best is not None
    return best[1]


def _labelled(
    model: DualEncoder, samples: SampleSet, split: str, workers: Workers
) -> tuple[Tensor, Tensor]:
    found = embed_split(
        model,
        samples,
        batch=_BATCH,
        workers=workers,
        what=f"{split} samples",
        reads=model.spec.reads,
    )
    labelled = found.labelled()
    if labelled is None or len(labelled[1]) == 0:
        raise DataError(
            f"adapt.kind: 'tip_adapter' needs labels, and no image of {split} has one; "
            "see data.label"
        )
    return labelled
