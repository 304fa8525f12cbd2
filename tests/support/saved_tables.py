"""Tables that datasets has saved, and the grey of a sample's picture."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np

from tests.support.shards import grey_rows

__all__ = ["grey_of", "save_dataset"]


def grey_of(sample_set: Any, index: int) -> int:
    return int(np.asarray(sample_set[index].image).mean())


def save_dataset(folder: Path, count: int = 30) -> datasets.Dataset:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "tags": datasets.List(datasets.Value("string")),
            "kind": datasets.ClassLabel(names=["sea", "sky", "soil"]),
        }
    )
    dataset = datasets.Dataset.from_list(grey_rows(count), features=features)
    if count:
        dataset.save_to_disk(str(folder))
    return dataset
