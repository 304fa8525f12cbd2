"""Which classes pictures have that nobody has labelled, where they do not exclude each other.

The lines are those of a ``metadata.jsonl``: beside the pictures they are a data set that
``data: {kind: folder, label: labels, labels: many}`` reads, a start for labelling by hand.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ptft.errors import UsageError
from ptft.evaluate.embed import evaluating
from ptft.evaluate.predict import PictureRead, picture_batches, says_nothing
from ptft.model import DualEncoder
from ptft.speech import ProgressCallback

__all__ = ["predict_labels"]

_BATCH = 64


@torch.no_grad()
def predict_labels(
    model: DualEncoder, pictures: Mapping[str, Path], *, count: ProgressCallback | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Tell the classes of pictures.

    Args:
        model: with a head for several classes a picture, on the device that is to run it.
        pictures: by their names.
        count: told how many pictures are done.

    Returns:
        A line for each picture, ``file_name``, ``labels`` (those that reach their thresholds, the
        most probable first) and ``scores`` (of every class, its probability); and how many could
        not be read, each of which is said.

    Raises:
        ModelError: the model has no such head, or reads texts.
        UsageError: no picture can be read.
    """
    spec = model.spec
    if spec.thresholds is None or spec.reads != "image":
        raise says_nothing(model)
    lines: list[dict[str, Any]] = []
    done = 0
    with evaluating(model):
        for batch in picture_batches(model, pictures, _BATCH):
            read = [one for one in batch if isinstance(one, PictureRead)]
            if read:
                images = torch.from_numpy(np.stack([one.pixels for one in read]))
                embedded = model.encode_image(model.normalise(images.to(model.device)))
                logits = model.class_logits(F.normalize(embedded, dim=-1))
                likely = logits.double().sigmoid().cpu().tolist()
                lines += [_line(model, a.name, row) for a, row in zip(read, likely, strict=True)]
            done += len(batch)
            if count is not None:
                count("pictures", done, len(pictures))
    if not lines:
        raise UsageError(f"no picture that can be read ({len(pictures)} cannot)")
    return lines, len(pictures) - len(lines)


def _line(model: DualEncoder, name: str, likely: list[float]) -> dict[str, Any]:
    scores = dict(zip(model.spec.classes, likely, strict=True))
    told = [
        (one, label)
        for label, one, least in zip(scores, likely, model.spec.thresholds or (), strict=True)
        if one >= least
    ]
    labels = [label for _, label in sorted(told, key=lambda pair: -pair[0])]
    return {
        "file_name": name,
        "labels": labels,
        "scores": {label: round(one, 5) for label, one in scores.items()},
    }
