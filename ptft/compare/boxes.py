"""A detector's figure in a comparison: average precision, with a value for each picture."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ptft.data import SampleSet
from ptft.errors import SampleError
from ptft.evaluate.detect import detect_split
from ptft.evaluate.picture_precision import picture_precision
from ptft.model import DualEncoder
from ptft.recipe import DetectEvaluation

__all__ = ["BoxMeasurement", "has_things", "measure_boxes"]


@dataclass(frozen=True)
class BoxMeasurement:
    """One evaluation of a detector on a set.

    Attributes:
        value: the metric, a share of 1.
        hits: float (Q,), the jackknife value of each picture, whose mean is ``value``: see
            :mod:`ptft.evaluate.picture_precision`.
        passed_over: counts of what was left out, by the names that ``ptft evaluate`` has for them.
    """

    value: float
    hits: Tensor
    passed_over: dict[str, int] = field(default_factory=dict)


def measure_boxes(
    model: DualEncoder, item: DetectEvaluation, samples: SampleSet, metric: str
) -> BoxMeasurement:
    """Look in every picture of a set for what its classes name.

    Raises:
        DataError: the set has no boxes, or none of the classes asked for.
        ModelError: the model has no detector.
    """
    found = detect_split(model, samples, item, workers=0)
    precision = picture_precision(found, metric)
    skipped = {"skipped": len(found.skipped)} if found.skipped else {}
    return BoxMeasurement(precision.value, torch.from_numpy(precision.pictures), skipped)


def has_things(samples: SampleSet, item: DetectEvaluation) -> bool:
    """Whether any picture of a set shows something to be found, without which nothing can be
    measured; pictures that cannot be read show nothing."""
    named = samples.box_classes or []
    asked = [number for number, name in enumerate(named) if name in (item.classes or named)]
    for index in range(len(samples)):
        try:
            boxes = samples[index].boxes
        except SampleError:
            continue
        if boxes is not None:
            things = boxes[~(boxes.crowd | boxes.difficult)]
            if np.isin(things.labels, asked).any():
                return True
    return False
