"""The sketch of the training embeddings that travels with a model, see :mod:`ptft.sketch`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ptft.data import open_split
from ptft.data.sample import Part
from ptft.errors import PtftError
from ptft.evaluate.embed import embed_split, embed_texts
from ptft.model import DualEncoder
from ptft.recipe import TOWERS_OF, Recipe
from ptft.recipe.data import DataSection, has_pictures
from ptft.sketch import SMALLEST, Sketches, make_confidence, make_sketch
from ptft.speech import ProgressCallback

__all__ = ["SAMPLES", "write_sketch"]

SAMPLES = 512
"""Of training, and of the samples held out, at most."""

_BATCH = 32


@dataclass(frozen=True)
class _Embedded:
    """Of N samples embeddings of their pictures and of their first captions, and what a head makes
    of them; with no row where there are none."""

    images_nd: NDArray[np.float32]
    texts_nd: NDArray[np.float32]
    classes_nc: NDArray[np.float32]


def write_sketch(
    model: DualEncoder,
    recipe: Recipe | None,
    path: Path,
    *,
    count: ProgressCallback | None = None,
) -> str | None:
    """Embed samples of the recipe's training and validation data, evenly spaced, and write their
    sketch; texts are the first caption of each.

    Args:
        model: on the CPU.
        recipe: None where none is recorded.
        path: of the file.
        count: told how many samples are done.

    Returns:
        Why there is none; None where it was written.
    """
    if recipe is None:
        return "no recipe is recorded"
    try:
        train, held = (
            _embed(model, recipe.data, split, recipe.seed, count) for split in ("train", "val")
        )
    except PtftError:  # its message may name folders of this machine
        return "the recipe has no validation data, or its data is not here"
    found = Sketches(
        image=make_sketch(train.images_nd, held.images_nd),
        text=make_sketch(train.texts_nd, held.texts_nd),
        confidence=make_confidence(train.classes_nc, held.classes_nc),
    )
    tensors = found.tensors()
    if not tensors:
        return f"training or validation data has fewer than {2 * SMALLEST} samples"
    save_file(tensors, path)
    return None


@torch.no_grad()
def _embed(
    model: DualEncoder,
    section: DataSection,
    split: Literal["train", "val"],
    seed: int,
    count: ProgressCallback | None,
) -> _Embedded:
    whole = open_split(section, split, seed=seed)
    most = min(SAMPLES, len(whole))
    last = most - 1 if whole.in_order else len(whole) - 1
    samples = Part(whole, np.linspace(0, last, most).astype(np.int64))
    pictures = has_pictures(section)
    embedded = embed_split(
        model,
        samples,
        batch=_BATCH,
        workers=0,  # a process would take longer to start than these take to be decoded
        what=f"sketch of {split}",
        progress=count,
        reads="image" if pictures else "text",
    )
    images_nd = embedded.inputs_nw if pictures else torch.empty(0, model.spec.embed_dim)
    texts = [own[0] for own in embedded.captions if own]
    texts_nd = embed_texts(model, texts, batch=_BATCH, progress=count)
    classes_nc = torch.empty(0, len(model.spec.classes))
    rows = {"image": images_nd, "text": texts_nd}
    read = [rows[tower] for tower in TOWERS_OF[model.spec.reads]]
    if model.head is not None and all(len(one) == len(embedded.captions) for one in read):
        logits_nc = model.class_logits(torch.cat(read, dim=1))
        each = model.spec.thresholds is not None
        classes_nc = logits_nc.sigmoid() if each else logits_nc.softmax(dim=1)
    if len(set(texts)) < 2 * SMALLEST:  # names of a few classes are no texts that anyone would send
        texts_nd = texts_nd[:0]
    return _Embedded(images_nd.numpy(), texts_nd.numpy(), classes_nc.numpy())
