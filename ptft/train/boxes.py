"""What a step of a detector asks of its pictures, and how wrong the answers are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptft.data import Batch
from ptft.data.boxes.box import Boxes
from ptft.detection import Targets, detect_loss
from ptft.errors import TrainingError
from ptft.model import DualEncoder
from ptft.model.detecting import query_tokens
from ptft.model.detector import PlaceAnswers
from ptft.objective import ObjectiveOutput
from ptft.recipe import DetectObjective

__all__ = ["Queries", "batch_queries", "boxes_loss"]


@dataclass(frozen=True)
class Queries:
    """The texts that all pictures of a batch are asked for.

    Attributes:
        tokens: int64 (Q * templates, L).
        classes: int64 (Q,), their classes by number, ascending.
    """

    tokens: Tensor
    classes: Tensor

    def targets(self, batch: Batch, rows: slice, device: torch.device) -> list[Targets]:
        """What is right for some pictures of the batch."""
        assert batch.boxes is not None
        return [self._target(boxes).to(device) for boxes in batch.boxes[rows]]

    def _target(self, boxes: Boxes) -> Targets:
        """Crowds and what need not be found are regions that are neither right nor wrong."""
        classes = self.classes.numpy()
        labels = np.searchsorted(classes, boxes.labels)
        asked = np.ones(len(classes), bool)
        if boxes.asked is not None:
            asked = np.isin(classes, boxes.asked)
        region = boxes.crowd | boxes.difficult
        return Targets(
            boxes=torch.from_numpy(boxes.corners[~region]),
            labels=torch.from_numpy(labels[~region]),
            asked=torch.from_numpy(asked),
            crowds=torch.from_numpy(boxes.corners[region]),
            crowd_labels=torch.from_numpy(labels[region]),
        )


def batch_queries(model: DualEncoder, section: DetectObjective, batch: Batch) -> Queries:
    """The classes that a batch shows, and others as wrong answers, up to ``queries``; which ones is
    drawn by torch's generator, which a step seeds.

    Raises:
        TrainingError: the data has no boxes.
    """
    if batch.boxes is None or model.detector is None:
        raise TrainingError("objective.kind: 'detect' needs boxes, and the data has none")
    names = model.detector.spec.classes
    chosen = torch.arange(len(names))
    if len(names) > section.queries:
        shown = torch.from_numpy(np.unique(np.concatenate([b.labels for b in batch.boxes])))
        absent = torch.ones(len(names), dtype=torch.bool)
        absent[shown] = False
        others = absent.nonzero()[:, 0]
        room = max(0, section.queries - len(shown))
        drawn = others[torch.randperm(len(others))[:room]]
        chosen = torch.cat([shown, drawn]).sort().values
    tokens = query_tokens(model, [names[n] for n in chosen.tolist()], section.templates)
    return Queries(tokens, chosen)


def boxes_loss(
    section: DetectObjective, logits: Tensor, boxes: Tensor, targets: Sequence[Targets]
) -> ObjectiveOutput:
    """The loss of a micro batch's pictures, see :func:`ptft.detection.detect_loss`."""
    weights = (section.class_weight, section.l1_weight, section.giou_weight)
    found = PlaceAnswers(logits, boxes)
    loss, parts = detect_loss(found, targets, weights=weights, costs=weights, places=section.places)
    return ObjectiveOutput(loss, {name: value.detach() for name, value in parts.items()})
