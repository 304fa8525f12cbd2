"""Texts with labels, alone and beside pictures, and a head that reads them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from ptft.model import DualEncoder, init_head
from ptft.recipe import ClassifyObjective, Reads
from tests.support.tiny import arch_section, build

__all__ = ["CLASSES", "TEXT_KINDS", "head_of", "notes", "picture", "reviews"]

TEXT_KINDS: tuple[Reads, ...] = ("text", "both")
CLASSES = ["cat", "dog", "sea"]
_GOOD = ("a fine film", "a warm and funny story", "great acting", "I would see it again")
_BAD = ("a dull film", "it never ends", "poor acting and a worse plot", "I left early")


def head_of(reads: Reads, arch: str = "tiny-vit", **section: Any) -> DualEncoder:
    """A tiny model with a head at random."""
    model = build(arch_section(arch))
    init_head(model, CLASSES, ClassifyObjective(reads=reads, **section), seed=0)
    return model


def reviews(folder: Path, suffix: str = ".csv", *, rows: int = 48) -> dict[str, Any]:
    """A data section of texts with labels and no picture; one row of ``train`` has no text."""
    folder.mkdir(exist_ok=True)
    for split in ("train", "val"):
        lines = ["text,label"]
        for index in range(rows):
            good = index % 2 == 0
            text = (_GOOD if good else _BAD)[index // 2 % 4]
            lines.append(f"{text} {index if split == 'train' else -index},{'good' if good else ''}")
            lines[-1] += "" if good else "bad"
        if split == "train":
            lines[3] = ",good"
        (folder / f"{split}{suffix}").write_text("\n".join(lines) + "\n")
    paths = {split: str(folder / f"{split}{suffix}") for split in ("train", "val")}
    return {"kind": "table", "image": None, "label": "label", "max_skipped": 1.0, **paths}


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(shade).integers(0, 60, (32, 32, 3), np.uint8)
    Image.fromarray(noise + np.uint8(shade)).save(stream, "PNG")
    return stream.getvalue()


def notes(folder: Path, rows: int = 32) -> dict[str, Any]:
    """A data section of pictures with texts, whose label takes both: equal bits are alike.

    One row of ``train`` has no picture, one has no text.
    """
    folder.mkdir(exist_ok=True)
    for split in ("train", "val"):
        made = []
        for index in range(rows):
            light, good = index % 2, index // 2 % 2
            text = f"{(_GOOD if good else _BAD)[index // 4 % 4]} {split} {index}"
            label = "alike" if light == good else "other"
            made.append({"image": picture(150 * light), "text": text, "label": label})
        if split == "train":
            made[5]["image"] = None
            made[9]["text"] = None
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), folder / f"{split}.parquet")
    paths = {split: str(folder / f"{split}.parquet") for split in ("train", "val")}
    return {"kind": "table", "label": "label", "max_skipped": 1.0, **paths}
