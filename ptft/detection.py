"""Detection: what a detector says, held against the boxes of a picture.

Every box is given to one place of the picture, by the assignment of least cost (Carion et al. 2020,
DETR, with the costs of Zhu et al. 2021, Deformable DETR), and that place learns the box and its
class. All others learn that nothing is there. The losses are those of OWL-ViT (Minderer et al.
2022): focal sigmoid of every query at every place (Lin et al. 2017), L1 and generalised IoU
(Rezatofighi et al. 2019), each divided by the boxes of its own picture, so that pictures do not
meet in the loss and a mean over micro batches and ranks is the whole batch's.

Annotations may be federated (Gupta et al. 2019, LVIS): a query whose class a picture was not
annotated for is neither right nor wrong there.

Shape letters: B batch, N places, Q queries, T boxes of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.files.tensors import send
from ptft.model.detector import PlaceAnswers

__all__ = [
    "Targets",
    "box_area",
    "box_iou",
    "corners",
    "detect_loss",
    "generalized_iou",
    "match_boxes",
    "sigmoid_focal",
]

ALPHA = 0.3  # of the focal loss, as OWL-ViT has it
GAMMA = 2.0
_INSIDE = 0.5  # share of a box that lies in a crowd, from where it is neither right nor wrong


@dataclass(frozen=True)
class Targets:
    """What is known of a picture.

    Attributes:
        boxes: float32 (T, 4), centre x, centre y, width, height as shares of the picture.
        labels: int64 (T,), which query each is.
        asked: bool (Q,), which queries the picture was annotated for.
        crowds: float32 (K, 4), regions of many things, as ``boxes``.
        crowd_labels: int64 (K,), which query each is of.
    """

    boxes: Tensor
    labels: Tensor
    asked: Tensor
    crowds: Tensor
    crowd_labels: Tensor

    def to(self, device: torch.device) -> "Targets":
        """The same on a device."""
        return Targets(
            send(self.boxes, device),
            send(self.labels, device),
            send(self.asked, device),
            send(self.crowds, device),
            send(self.crowd_labels, device),
        )


def detect_loss(
    found: PlaceAnswers,
    targets: Sequence[Targets],
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    costs: tuple[float, float, float] = (1.0, 1.0, 1.0),
    places: int = 1,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss of a batch's pictures.

    Args:
        found: of the batch, see :class:`ptft.model.detector.PlaceAnswers`.
        targets: of each picture.
        weights: of the class, L1 and generalised IoU losses.
        costs: of the same three where boxes are given to places.
        places: that each box is given.

    Returns:
        A 0-d float32 tensor, and the means of its parts (``class``, ``l1``, ``giou``), detached.
    """
    logits, boxes = found.logits.float(), found.boxes.float()
    matches = match_boxes(logits.detach(), boxes.detach(), targets, costs=costs, places=places)
    parts = [
        _picture_loss(logits_nq, boxes_n4, target, *match)
        for logits_nq, boxes_n4, target, match in zip(logits, boxes, targets, matches, strict=True)
    ]
    mean_3 = torch.stack(parts).mean(dim=0)
    loss = (mean_3 * send(torch.tensor(weights, dtype=mean_3.dtype), mean_3.device)).sum()
    shown = mean_3.detach()
    return loss, {"class": shown[0], "l1": shown[1], "giou": shown[2]}


def _picture_loss(
    logits_nq: Tensor, boxes_n4: Tensor, target: Targets, places: Tensor, which: Tensor
) -> Tensor:
    """Class, L1 and generalised IoU loss of one picture, each by its boxes: (3,)."""
    wanted_nq = torch.zeros_like(logits_nq)
    wanted_nq[places, target.labels[which]] = 1.0
    counts_nq = target.asked[None, :].expand_as(logits_nq).clone()
    if len(target.crowds):
        counts_nq &= ~(_in_crowds(boxes_n4.detach(), target, logits_nq.shape[1]) & (wanted_nq == 0))
    by_class = (sigmoid_focal(logits_nq, wanted_nq) * counts_nq).sum()
    own, right = boxes_n4[places], target.boxes[which]
    by_l1 = (own - right).abs().sum()
    by_giou = (1 - _paired_giou(corners(own), corners(right))).sum()
    return torch.stack([by_class, by_l1, by_giou]) / max(1, len(which), len(target.boxes))


@torch.no_grad()
def match_boxes(
    logits_bnq: Tensor,
    boxes_bn4: Tensor,
    targets: Sequence[Targets],
    *,
    costs: tuple[float, float, float] = (1.0, 1.0, 1.0),
    places: int = 1,
) -> list[tuple[Tensor, Tensor]]:
    """Give each box of a picture places of its own, so that the sum of costs is least.

    One for each box is DETR's way; several are those of Jia et al. 2023 (DETRs with hybrid
    matching), who repeat the boxes: more of what a picture says is learned from in a step, and
    answers come several times, of which NMS leaves one.

    The cost of a place for a box: the focal loss of its class there as a yes less that as a no, the
    L1 distance, and the negative generalised IoU. The assignment is SciPy's, on the host, which
    waits for the device once for all pictures.

    Returns:
        Of each picture int64 twice: places, and the numbers of the boxes that they are given. Every
        box has as many, fewer than ``places`` in a picture that has not so many; where there are
        more boxes than places, one each, and some none.
    """
    from scipy.optimize import linear_sum_assignment

    made = [
        _match_costs(logits_nq, boxes_n4, target, costs)
        for logits_nq, boxes_n4, target in zip(logits_bnq, boxes_bn4, targets, strict=True)
    ]
    flat = torch.cat([cost_nt.flatten() for cost_nt in made]).cpu()
    parts = flat.split([cost_nt.numel() for cost_nt in made])
    found = []
    for part, cost_nt in zip(parts, made, strict=True):
        count, boxes = cost_nt.shape
        times = max(1, min(places, count // max(1, boxes)))  # so that every box gets as many
        at, which = linear_sum_assignment(part.view(count, boxes).repeat(1, times).numpy())
        which = which % max(1, boxes)
        device = logits_bnq.device
        found.append((send(torch.as_tensor(at), device), send(torch.as_tensor(which), device)))
    return found


def _match_costs(
    logits_nq: Tensor, boxes_n4: Tensor, target: Targets, costs: tuple[float, float, float]
) -> Tensor:
    """Of each place for each box, float64 (N, T)."""
    logits_nt = logits_nq[:, target.labels].double()
    yes = _focal(logits_nt, 1.0, ALPHA)
    no = _focal(-logits_nt, 1.0, 1 - ALPHA)
    l1 = torch.cdist(boxes_n4.double(), target.boxes.double(), p=1)
    giou = generalized_iou(corners(boxes_n4.double()), corners(target.boxes.double()))
    return costs[0] * (yes - no) + costs[1] * l1 - costs[2] * giou


def sigmoid_focal(
    logits: Tensor, wanted: Tensor, *, alpha: float = ALPHA, gamma: float = GAMMA
) -> Tensor:
    """Focal loss of each logit (Lin et al. 2017): ``-a (1 - p)^g log p``, p that of what is right.

    Args:
        logits, wanted: of one shape; wanted is 0 or 1.
        alpha: weight of what is there; of the rest 1 - alpha.
    """
    sign = 2 * wanted - 1
    weight = alpha * wanted + (1 - alpha) * (1 - wanted)
    return _focal(logits * sign, weight, 1.0, gamma)


def _focal(margin: Tensor, weight: Tensor | float, alpha: float, gamma: float = GAMMA) -> Tensor:
    """By the logit of what is right."""
    return -alpha * weight * (-margin).sigmoid() ** gamma * F.logsigmoid(margin)


def corners(boxes: Tensor) -> Tensor:
    """Centre x, centre y, width, height -> left, top, right, bottom: (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def box_area(boxes: Tensor) -> Tensor:
    """Areas of corner boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of every pair of corner boxes: (N, 4), (T, 4) -> (N, T)."""
    shared = _intersection(one[:, None], other[None])
    union = box_area(one)[:, None] + box_area(other)[None] - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)


def generalized_iou(one: Tensor, other: Tensor) -> Tensor:
    """Generalised IoU of every pair of corner boxes (N, 4), (T, 4): (N, T), in [-1, 1]."""
    return _paired_giou(one[:, None], other[None])


def _paired_giou(one: Tensor, other: Tensor) -> Tensor:
    """Generalised IoU of boxes that broadcast: IoU less the share of the hull that is empty."""
    tiny = torch.finfo(one.dtype).tiny
    shared = _intersection(one, other)
    union = box_area(one) + box_area(other) - shared
    low = torch.minimum(one[..., :2], other[..., :2])
    high = torch.maximum(one[..., 2:], other[..., 2:])
    hull = (high - low).prod(dim=-1)
    return shared / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def _intersection(one: Tensor, other: Tensor) -> Tensor:
    low = torch.maximum(one[..., :2], other[..., :2])
    high = torch.minimum(one[..., 2:], other[..., 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def _in_crowds(boxes_n4: Tensor, target: Targets, queries: int) -> Tensor:
    """Which places lie, by their boxes, mostly in a crowd of which query: bool (N, Q)."""
    own, crowds = corners(boxes_n4), corners(target.crowds)
    shared_nk = _intersection(own[:, None], crowds[None])
    inside_nk = shared_nk >= _INSIDE * box_area(own)[:, None]
    of_kq = F.one_hot(target.crowd_labels, queries).bool()
    return (inside_nk[:, :, None] & of_kq[None]).any(dim=1)
