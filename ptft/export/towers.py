"""The two towers of a model as ONNX files, each held against torch before it counts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptft.artifact import FolderFiles
from ptft.evaluate.embed import evaluating
from ptft.export.golden import TEXTS, golden_pictures
from ptft.export.graph import Tower, write_graph
from ptft.export.parity import TOLERANCE, Parity, measure_parity
from ptft.model import DualEncoder

__all__ = [
    "PRECISIONS",
    "Precision",
    "expected_outputs",
    "image_tower",
    "text_tower",
    "write_towers",
]


@dataclass(frozen=True)
class Precision:
    """One way of storing a tower's numbers.

    Attributes:
        suffix: of the file's name, before ``.onnx``; by these names transformers.js finds it.
        tolerance: of the parity check, see :data:`ptft.export.parity.TOLERANCE`.
        convert: makes the file (first path) of the fp32 one (second); None for fp32 itself.
    """

    suffix: str
    tolerance: float
    convert: Callable[[Path, Path], None] | None


PRECISIONS = {"fp32": Precision("", TOLERANCE, None)}


class _TextTower(nn.Module):
    """``encode_text``, which cuts a causal mask to the text where the tower's own forward does not,
    with the tower as its only part."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.text = model.text
        self._encode = model.encode_text

    def forward(self, input_ids: Tensor) -> Tensor:
        return self._encode(input_ids)


class _ImageTower(nn.Module):
    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.image = model.image
        self._encode = model.encode_image

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self._encode(pixel_values)


def image_tower(model: DualEncoder) -> Tower:
    """pixel_values float32 (B, 3, H, W) -> image_embeds (B, D), any B."""
    height, width = model.spec.preprocess.size
    return Tower(
        module=_ImageTower(model).eval(),
        input_name="pixel_values",
        output_name="image_embeds",
        example=torch.zeros(2, 3, height, width),
        axes={0: ("batch", None)},
    )


def text_tower(model: DualEncoder) -> Tower:
    """input_ids int64 (B, L) -> text_embeds (B, D), any B; any L up to the context length where
    padding does not matter, else that length alone."""
    tokens = model.spec.tokenizer(TEXTS[:2])
    axes: dict[int, tuple[str, int | None]] = {0: ("batch", None)}
    if model.spec.text_trimmable:
        tokens = tokens[:, : max(3, model.context_length // 2)]
        axes[1] = ("length", model.context_length)
    return Tower(
        module=_TextTower(model).eval(),
        input_name="input_ids",
        output_name="text_embeds",
        example=torch.from_numpy(np.ascontiguousarray(tokens)),
        axes=axes,
    )


def write_towers(model: DualEncoder, folder: Path) -> dict[str, Parity]:
    """Write both towers in every precision, and measure each.

    Args:
        model: on the CPU.
        folder: the model folder.

    Returns:
        file name -> how far it is from torch.

    Raises:
        ExportError: a tower cannot be exported, or onnxruntime cannot run the file.
        ParityError: a file's outputs are not the model's.
    """
    results: dict[str, Parity] = {}
    with evaluating(model):
        for file, tower, batches in (
            (FolderFiles.TEXT_ONNX, text_tower(model), text_batches(model)),
            (FolderFiles.VISION_ONNX, image_tower(model), image_batches(model)),
        ):
            expected = expected_outputs(tower, batches)
            plain = folder / file
            write_graph(tower, plain)
            for precision in PRECISIONS.values():
                path = plain.with_name(f"{plain.stem}{precision.suffix}{plain.suffix}")
                if precision.convert is not None:
                    precision.convert(path, plain)
                name = path.relative_to(folder).as_posix()
                results[name] = measure_parity(
                    path, batches, expected, tolerance=precision.tolerance
                )
    return results


def image_batches(model: DualEncoder) -> dict[str, NDArray[np.float32]]:
    """Batches of 1, 2 and 5: drawn scenes, and one picture of noise."""
    preprocess = model.spec.preprocess
    noise = np.random.default_rng(0).integers(0, 256, (1, *preprocess.size, 3), np.uint8)
    every = preprocess.normalise(np.concatenate([golden_pictures(preprocess), noise]))
    return {"one": every[:1], "two": every[1:3], "five": every}


def text_batches(model: DualEncoder) -> dict[str, NDArray[np.int64]]:
    """Batches of 1, 2 and all texts; where the length may vary, of three lengths."""
    tokenizer = model.spec.tokenizer
    every = tokenizer(TEXTS)
    return {
        "one": tokenizer.trim(every[:1]),
        "two": tokenizer.trim(every[1:3]),
        "all": every,
    }


@torch.no_grad()
def expected_outputs(tower: Tower, batches: dict[str, NDArray]) -> dict[str, NDArray[np.float32]]:
    """What torch makes of each batch: (B, D)."""
    return {
        name: tower.module(torch.from_numpy(np.ascontiguousarray(batch))).numpy()
        for name, batch in batches.items()
    }
