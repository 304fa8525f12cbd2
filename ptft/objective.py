"""Objectives: a batch in, a loss and the scalars worth watching out.

Shape letters: B batch, D width of the joint space, L text length, C classes.

Choices worth knowing:

- The logit scale and bias take part in the loss here, not in the towers; the scale is clamped
  after each step (:func:`clamp_logit_scale`), as CLIP did, so that its gradient stays alive.
- Pairs of one caption are positives, and no negatives of each other: each positive is held against
  the pairs of other captions alone (InfoNCE), or is asked to be a yes (sigmoid). Spreading the
  softmax's target over the positives, as UniCL does, would change nothing here: their text features
  are equal, and so then are the gradients of both losses. Where no caption repeats, the plain
  losses are computed.
- Where captions are made of class names (``templates``), pairs of one class count as of one
  caption: "a photo of a cat" is no negative of "a drawing of a cat".
- From ``TILED_FROM`` pairs on, and over several ranks, the logits are made tile by tile
  (:mod:`ptft.tiled`); same gradients.
- With ``matryoshka`` the loss is the mean over its widths and the whole one; each is the plain loss
  of the features' first dimensions, made of length 1 again.
- Losses are computed in float32 whatever lower precision the towers ran in.
- Features come first and the loss is a function of them (:func:`features_loss`), so that a batch
  may be larger than what the towers can be run on at once (:mod:`ptft.train.gradients`).
"""

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.distributed import ALONE, World
from ptft.errors import RecipeError, TrainingError
from ptft.files.tensors import send
from ptft.model.encoder import DualEncoder
from ptft.positives import pair_groups
from ptft.recipe import (
    ClassifyObjective,
    ClipObjective,
    DetectObjective,
    ObjectiveSection,
    SelfSupervisedObjective,
    SiglipObjective,
    read_towers,
)
from ptft.tiled import tiled_clip_loss, tiled_siglip_loss

__all__ = [
    "TILED_FROM",
    "Features",
    "ObjectiveOutput",
    "check_widths",
    "clamp_logit_scale",
    "classify_loss",
    "clip_loss",
    "features_loss",
    "labels_loss",
    "needs_labels",
    "needs_pictures",
    "needs_text",
    "siglip_loss",
    "views_loss",
]
_LEAST_DOUBT = 1e-12  # of the focal factor, whose gradient has no end at 0 for a gamma below 1
_STEADY = 1e-4  # under the root of a variance, whose gradient has no end at 0; as in VICReg
TILED_FROM = 2048  # pairs of a batch: from here on the (B, B) logits are no longer kept


@dataclass(frozen=True)
class Features:
    """What a contrastive loss reads of this rank's pairs.

    Attributes:
        image_bd, text_bd: L2-normalised (b, D); row i of one belongs to the other's.
        log_scale: (1,), the model's logit scale (a logarithm).
        bias: (1,), the model's logit bias (SigLIP), or None.
        caption_ids: int64 (b,) or (b, 2), see ``pair_groups``; on the host, or whoever asks what
            repeats waits for the device.
    """

    image_bd: Tensor
    text_bd: Tensor
    log_scale: Tensor
    bias: Tensor | None
    caption_ids: Tensor


@dataclass(frozen=True)
class ObjectiveOutput:
    """A scalar loss that carries gradients, and figures for the log.

    Attributes:
        loss: 0-d.
        scalars: 0-d each, without a graph and where the loss is: who reads one waits for the
            device.
    """

    loss: Tensor
    scalars: dict[str, Tensor] = field(default_factory=dict)


def needs_text(section: ObjectiveSection) -> bool:
    """Whether the objective reads captions."""
    return not isinstance(section, DetectObjective) and "text" in read_towers(section)


def needs_pictures(section: ObjectiveSection) -> bool:
    """Whether the objective reads pictures."""
    return "image" in read_towers(section)


def needs_labels(section: ObjectiveSection) -> bool:
    """Whether the objective reads classes."""
    return isinstance(section, ClassifyObjective)


def classify_loss(
    section: ClassifyObjective,
    logits_bc: Tensor,
    labels: Tensor | None,
    log_scale: Tensor,
    weights_c: Tensor | None = None,
) -> ObjectiveOutput:
    """Cross-entropy of logits (b, C), each sample's times the weight of its class and the focal
    factor, and the mean over samples (not over their weights, so that micro batches and ranks add
    up); ``log_scale`` is shown, not used. Labels bool (b, C) are those of :func:`labels_loss`.

    Raises:
        TrainingError: the data has no labels.
    """
    if labels is None:
        raise TrainingError("objective.kind: 'classify' needs labels, and the data has none")
    logits_bc = _single(logits_bc)
    if labels.dim() == 2:
        return labels_loss(section, logits_bc, labels, log_scale, weights_c)
    smoothing = section.label_smoothing
    if weights_c is None and not section.focal:
        loss = F.cross_entropy(logits_bc, labels, label_smoothing=smoothing)
    else:
        loss_b = F.cross_entropy(logits_bc, labels, label_smoothing=smoothing, reduction="none")
        if section.focal:
            right_b = logits_bc.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
            loss_b = loss_b * (-right_b.expm1()).clamp(min=_LEAST_DOUBT) ** section.focal
        if weights_c is not None:
            loss_b = loss_b * weights_c[labels]
        loss = loss_b.mean()
    hits = (logits_bc.detach().argmax(1) == labels).float().mean()
    return ObjectiveOutput(loss, {"accuracy": hits, "logit_scale": _shown_scale(log_scale)})


def labels_loss(
    section: ClassifyObjective,
    logits_bc: Tensor,
    has_bc: Tensor,
    log_scale: Tensor,
    weights_c: Tensor | None = None,
) -> ObjectiveOutput:
    """Binary cross-entropy of the sigmoid of logits (b, C), of each class by itself; the mean over
    samples and classes. Where a sample has a class, it is multiplied by the class's weight.

    Args:
        has_bc: bool (b, C), which classes each sample has.
        log_scale: is shown, not used.
    """
    target_bc = has_bc.to(logits_bc.dtype)
    smoothed_bc = target_bc * (1 - section.label_smoothing) + section.label_smoothing / 2
    loss_bc = F.binary_cross_entropy_with_logits(
        logits_bc, smoothed_bc, pos_weight=weights_c, reduction="none"
    )
    if section.focal:
        right_bc = torch.where(has_bc, logits_bc, -logits_bc)  # its sigmoid is the truth's
        doubt_bc = torch.sigmoid(-right_bc).clamp(min=_LEAST_DOUBT)
        loss_bc = loss_bc * doubt_bc**section.focal
    right = ((logits_bc.detach() > 0) == has_bc).float().mean()
    shown = {"accuracy": right, "logit_scale": _shown_scale(log_scale)}
    return ObjectiveOutput(loss_bc.mean(), shown)


def features_loss(
    section: ClipObjective | SiglipObjective, features: Features, world: World = ALONE
) -> ObjectiveOutput:
    """The contrastive loss of the pairs of all ranks.

    Its value is the whole batch's on every rank; its gradients by this rank's features and by the
    scale and bias are shares whose sum over the ranks is the whole batch's gradient.
    """
    scalars = {"logit_scale": _shown_scale(features.log_scale)}
    if isinstance(section, SiglipObjective):
        assert features.bias is not None
        scalars["logit_bias"] = features.bias.detach().reshape(())
    loss = _pairs_loss(section, features, world)
    if widths := section.matryoshka or ():
        losses = [loss, *(_pairs_loss(section, _cut(features, width), world) for width in widths)]
        loss = torch.stack(losses).mean()
    return ObjectiveOutput(loss, scalars)


def _pairs_loss(
    section: ClipObjective | SiglipObjective, features: Features, world: World
) -> Tensor:
    image_bd, text_bd = features.image_bd, features.text_bd
    ids = features.caption_ids if section.multi_positive else None
    scale = features.log_scale.exp()
    if isinstance(section, ClipObjective):
        return clip_loss(image_bd, text_bd, scale, caption_ids=ids, world=world)
    assert features.bias is not None
    return siglip_loss(image_bd, text_bd, scale, features.bias, caption_ids=ids, world=world)


def _cut(features: Features, width: int) -> Features:
    """The first dimensions of embeddings, again of length 1."""
    image_bd, text_bd = (
        F.normalize(_single(whole_bd)[:, :width], dim=1)
        for whole_bd in (features.image_bd, features.text_bd)
    )
    return replace(features, image_bd=image_bd, text_bd=text_bd)


def check_widths(section: ObjectiveSection, embed_dim: int) -> None:
    """Hold ``objective.matryoshka`` against the width of the joint space.

    Raises:
        RecipeError: a width is not below it.
    """
    if not isinstance(section, ClipObjective | SiglipObjective) or not section.matryoshka:
        return
    if (widest := section.matryoshka[-1]) >= embed_dim:
        raise RecipeError(
            f"objective.matryoshka: {widest}; allowed: widths below the embedding's, {embed_dim}"
        )


def clip_loss(
    image_bd: Tensor,
    text_bd: Tensor,
    scale: Tensor,
    *,
    caption_ids: Tensor | None = None,
    world: World = ALONE,
) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018; Radford et al. 2021).

    Args:
        image_bd, text_bd: L2-normalised features (B, D); row i of one belongs to the other's.
        scale: (1,), 1/temperature, multiplies the cosine similarities.
        caption_ids: (B,) or (B, 2), see ``pair_groups``, on the host at best. With P(i) the pairs
            of i's group, row i's loss is the mean over j in P(i) of
            -log(e_ij / (e_ij + sum of e_ik, k not in P(i))).
        world: whose pairs all belong to the batch; rows above are this rank's.

    Returns:
        The mean of the image-to-text and text-to-image losses, a 0-d float32 tensor.
    """
    image_bd, text_bd, scale = _single(image_bd), _single(text_bd), _single(scale)
    if world.size > 1 or len(image_bd) >= TILED_FROM:
        return tiled_clip_loss(image_bd, text_bd, scale, caption_ids, world)
    logits_bb = scale * (image_bd @ text_bd.T)
    same_bb = _same_caption(caption_ids, logits_bb.device)
    if same_bb is None:
        target = torch.arange(len(logits_bb), device=logits_bb.device)
        return (F.cross_entropy(logits_bb, target) + F.cross_entropy(logits_bb.T, target)) / 2
    return (_multi_positive(logits_bb, same_bb) + _multi_positive(logits_bb.T, same_bb)) / 2


def _multi_positive(logits_bb: Tensor, same_bb: Tensor) -> Tensor:
    """Mean over rows of the mean over a row's positives, each against the row's negatives."""
    negatives_b1 = logits_bb.masked_fill(same_bb, -math.inf).logsumexp(dim=1, keepdim=True)
    loss_bb = -F.logsigmoid(logits_bb - negatives_b1)  # -log(e_ij / (e_ij + negatives))
    return (loss_bb * same_bb).sum(dim=1).div(same_bb.sum(dim=1)).mean()


def siglip_loss(
    image_bd: Tensor,
    text_bd: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    caption_ids: Tensor | None = None,
    world: World = ALONE,
) -> Tensor:
    """Pairwise sigmoid loss (Zhai et al. 2023): every pair is a yes-or-no question.

    Args: as :func:`clip_loss`; ``bias`` (1,) is added to the scaled similarities.

    Returns:
        The sum over all B * B pairs divided by B, a 0-d float32 tensor.
    """
    image_bd, text_bd = _single(image_bd), _single(text_bd)
    scale, bias = _single(scale), _single(bias)
    if world.size > 1 or len(image_bd) >= TILED_FROM:
        return tiled_siglip_loss(image_bd, text_bd, scale, bias, caption_ids, world)
    logits_bb = scale * (image_bd @ text_bd.T) + bias
    positive = _same_caption(caption_ids, logits_bb.device)
    if positive is None:
        positive = torch.eye(len(logits_bb), dtype=torch.bool, device=logits_bb.device)
    return -F.logsigmoid(torch.where(positive, logits_bb, -logits_bb)).sum() / len(logits_bb)


def views_loss(section: SelfSupervisedObjective, views_bd: Tensor) -> ObjectiveOutput:
    """VICReg (Bardes et al. 2022) of two views of each picture.

    Args:
        views_bd: L2-normalised (2N, D), N at least 2; rows 2i and 2i + 1 are of one picture. They
            are multiplied by sqrt(D), so that isotropic ones have a variance of 1 a dimension.
    """
    views_bd = _single(views_bd) * math.sqrt(views_bd.shape[1])
    apart = (views_bd[0::2] - views_bd[1::2]).square().mean()
    lacking, shared = torch.zeros_like(apart), torch.zeros_like(apart)
    for view_nd in (views_bd[0::2], views_bd[1::2]):
        centred_nd = view_nd - view_nd.mean(dim=0)
        covariance_dd = centred_nd.T @ centred_nd / (len(view_nd) - 1)
        variance_d = covariance_dd.diagonal()
        lacking = lacking + F.relu(1 - (variance_d + _STEADY).sqrt()).mean() / 2
        others = covariance_dd.square().sum() - variance_d.square().sum()
        shared = shared + others / len(variance_d)
    loss = section.invariance * apart + section.variance * lacking + section.covariance * shared
    parts = {"apart": apart, "lacking": lacking, "shared": shared}
    return ObjectiveOutput(loss, {name: part.detach() for name, part in parts.items()})


def clamp_logit_scale(section: ObjectiveSection, model: DualEncoder) -> None:
    """Keep 1/temperature within [1, max_logit_scale], in place; call it after each step."""
    if isinstance(section, DetectObjective | SelfSupervisedObjective):  # which read it nowhere
        return
    with torch.no_grad():
        model.logit_scale.clamp_(0.0, math.log(section.max_logit_scale))


def _same_caption(caption_ids: Tensor | None, device: torch.device) -> Tensor | None:
    """bool (B, B), true where two pairs are of one group; None where all groups differ."""
    if caption_ids is None:
        return None
    group = pair_groups(caption_ids)
    if len(group.unique()) == len(group):
        return None
    group = send(group, device)
    return group[:, None] == group[None, :]


def _shown_scale(log_scale: Tensor) -> Tensor:
    return log_scale.detach().exp().reshape(())


def _single(tensor: Tensor) -> Tensor:
    """float32, or what is wider already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
