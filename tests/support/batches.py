"""Batches of a small set, joined and compared."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ptft.data.reading.batch import Batch, BatchSpec
from ptft.data.reading.loader import train_batches
from ptft.data.sample import SampleSet
from ptft.preprocess.images import ImagePreprocess
from ptft.recipe import AugmentSection

PREPROCESS = ImagePreprocess(size=(16, 16))


AUGMENT = AugmentSection(crop_scale=(0.5, 1.0), colour_jitter=0.3)


class Letters:
    """A tokenizer of letters: what the loader needs of one, and picklable."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), 80), np.int64)
        for row, text in zip(rows, texts, strict=True):
            row[: len(text)] = [ord(letter) for letter in text[:80]]
        return rows


def batches_of(samples: SampleSet, **changed: Any) -> list[Batch]:
    where = {name: changed.pop(name) for name in ("start", "end", "workers") if name in changed}
    spec = BatchSpec(preprocess=PREPROCESS, size=12, seed=1, tokenizer=Letters(), augment=AUGMENT)
    spec = replace(spec, **changed)
    return list(train_batches(samples, spec, **{"start": 0, "end": 96, "workers": 0, **where}))


def joined(batches: Sequence[Batch]) -> dict[str, Any]:
    """All that batches hold, in one row."""
    first = batches[0]
    joined: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("images", "tokens", "caption_ids", "labels")
        if getattr(first, name) is not None
    }
    joined["names"] = [name for batch in batches for name in batch.names]
    joined["skipped"] = [entry for batch in batches for entry in batch.skipped]
    return joined


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key])
        if isinstance(one[key], torch.Tensor)
        else one[key] == other[key]
        for key in one
    )
