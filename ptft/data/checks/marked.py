"""What a detector learns from, looked at before it costs anything."""

from ptft.data.sample import SampleSet
from ptft.errors import DataError

__all__ = ["box_classes"]


def box_classes(samples: SampleSet, key: str = "data.train") -> list[str]:
    """Names of what the boxes of a set mark.

    Raises:
        DataError: it has no boxes.
    """
    if not samples.box_classes:
        raise DataError(
            f"{key}: nothing is marked in these pictures, and objective.kind 'detect' learns from "
            "boxes; allowed: data.kind boxes or scenes, or data.boxes, the field that says them"
        )
    return list(samples.box_classes)
