"""How a detector's new head begins, fitted to what the encoder under it already says.

A place's embedding begins as the encoder's own of what is there (of a convolutional tower), and so
is like many names before a step is taken: at a fixed shift these would be answers, and the first
steps would unlearn what the encoder knows. The shift is set so that an answer has a probability of
0.01 on average over places and names, where the focal loss is to begin (Lin et al. 2017). Where a
place's embedding is the encoder's own, the scale is the one that its similarities were learned at;
a transformer's place is no embedding yet, and has the head's own.
"""

import numpy as np
import torch
from torch import Tensor

from ptft.data import SampleSet
from ptft.data.checks.marked import box_classes
from ptft.data.reading.loader import marked_batches
from ptft.data.sample import Part, draw_samples
from ptft.errors import DataError
from ptft.evaluate.embed import evaluating
from ptft.evaluate.thresholds import prior_bias
from ptft.model import DualEncoder
from ptft.model.detecting import prepare_detector, query_embeddings
from ptft.model.detector import PRIOR, SCALE, similar
from ptft.recipe import DetectObjective

__all__ = ["fit_prior", "put_detector"]

_PICTURES = 16
_REACH = 4.0  # of a shift: similarities lie between -1 and 1


def put_detector(
    model: DualEncoder,
    samples: SampleSet,
    section: DetectObjective,
    *,
    seed: int,
    nms: float | None = None,
) -> None:
    """Make a model a detector of what a training set marks, in place; a new head is fitted.

    Args:
        nms: of its answers, see ``DetectorSpec``.

    Raises:
        DataError: the set has no boxes, or no picture of it can be read.
        ModelError: the image tower gives no grid, or does not take pictures of that size.
    """
    had = model.detector
    prepare_detector(model, section, box_classes(samples), seed=seed, nms=nms)
    if model.detector is not had:
        fit_prior(model, samples, section, seed=seed)


@torch.no_grad()
def fit_prior(
    model: DualEncoder, samples: SampleSet, section: DetectObjective, *, seed: int
) -> None:
    """Set shift and scale of a new head, in place, by some of the pictures that it is to learn
    from, drawn by a seed.

    Raises:
        DataError: none of them can be read.
    """
    detector = model.detector
    assert detector is not None
    names = detector.spec.classes[: section.queries]
    drawn = Part(samples, draw_samples(samples, seed, limit=_PICTURES))
    rows: list[Tensor] = []
    head = detector.class_head
    with evaluating(model):
        queries_qd = query_embeddings(model, names, section.templates)
        preprocess = model.spec.preprocess
        for batch in marked_batches(drawn, preprocess=preprocess, batch=_PICTURES, workers=0):
            if len(batch.indices):
                images = model.normalise(batch.images.to(model.device))
                places_bnf, known_bnd, _ = detector.places(model.image, images)
                rows.append(similar(head.embed(places_bnf, known_bnd), queries_qd).flatten())
    if not rows:
        raise DataError(f"data.train: none of {len(drawn)} pictures could be read")
    scale = SCALE if detector.pyramid is None else float(model.logit_scale.exp())
    logits = torch.cat(rows).double()[:, None] * scale
    shift = float(prior_bias(logits, logits.new_tensor([PRIOR]))) / scale
    head.logit_shift.bias.fill_(min(max(shift, -_REACH), _REACH))
    head.logit_scale.bias.fill_(scale - 1.0 if scale >= 1.0 else float(np.log(scale)))
