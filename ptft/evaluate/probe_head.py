"""The linear probe as the head that fine-tuning starts from (LP-FT; Kumar et al. 2022)."""

import torch
from torch import Tensor

from ptft.data import SampleSet
from ptft.data.reading.loader import Workers
from ptft.errors import DataError
from ptft.evaluate.embed import embed_split
from ptft.evaluate.probe import choose_c, fit_probe
from ptft.model import DualEncoder
from ptft.recipe import Reads

__all__ = ["probe_head"]

_BATCH = 256  # samples at once, as an evaluation has it unless told otherwise


@torch.no_grad()
def probe_head(
    model: DualEncoder,
    samples: SampleSet,
    *,
    seed: int,
    workers: Workers = "auto",
    reads: Reads = "image",
) -> tuple[Tensor, Tensor]:
    """Fit the probe of :mod:`ptft.evaluate.probe` to a training set, as a head of the model.

    The set is embedded once, as an evaluation does it, without augmentation; samples without a
    label are left out. C is chosen on a fifth of the set, as the ``probe`` evaluation chooses it.

    Args:
        model: on the device to run on; its mode and its weights stay as they are.
        seed: of the fifth that is held out.
        workers: processes that read; they change no result.
        reads: what of a sample the head is for.

    Returns:
        float32 rows (C, W) and biases (C,), with which ``model.classify`` gives the probe's logits.

    Raises:
        DataError: no sample has a label, or none can be read.
        ModelError: an embedding is not finite.
    """
    found = embed_split(
        model, samples, batch=_BATCH, workers=workers, what="train samples", reads=reads
    )
    labelled = found.labelled()
    if labelled is None or found.classes is None or len(labelled[1]) == 0:
        raise DataError(
            "objective.head: probe needs labels, and no sample of train has one; see data.label"
        )
    inputs_nw, labels_n = (part.to(model.device) for part in labelled)
    classes = len(found.classes)
    c = choose_c(inputs_nw, labels_n, classes=classes, seed=seed)
    probe = fit_probe(inputs_nw, labels_n, classes=classes, c=c)
    # exp(logit_scale) stands before the rows; the mean that the probe takes off goes to the bias
    rows_cd = probe.weight_cd / model.logit_scale.double().exp()
    bias_c = probe.bias_c - probe.weight_cd @ probe.mean_d
    return rows_cd.float(), bias_c.float()
