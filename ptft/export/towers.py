"""The two towers of a model as ONNX files, each held against torch before it counts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptft.artifact import FolderFiles
from ptft.errors import ExportError, ModelError, ParityError
from ptft.evaluate.embed import evaluating
from ptft.export.graph import Tower, check_axes, write_graph
from ptft.export.parity import TEXTS, Parity, golden_pictures, measure_parity
from ptft.export.quality import Quality
from ptft.export.quantise import write_half, write_int8
from ptft.model import DualEncoder
from ptft.onnx.golden import TOLERANCE
from ptft.onnx.model import tower_file

__all__ = ["MAX_LOSS", "Written", "expected_outputs", "image_tower", "text_tower", "write_towers"]


@dataclass
class Written:
    """What came of writing the towers.

    Attributes:
        parity: file name -> how far it is from torch.
        left_out: file name -> why it was not kept.
    """

    parity: dict[str, Parity] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


_HOW = {"fp32": "", "fp16": "halving it, ", "int8": "quantising it, "}
MAX_LOSS = 1.0
"""Points of recall or accuracy that a file may cost unless told otherwise."""


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


def write_towers(
    model: DualEncoder,
    folder: Path,
    *,
    precisions: Sequence[str] = ("fp32",),
    quality: Quality | None = None,
    max_loss: float = MAX_LOSS,
    pictures: NDArray[np.float32] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Written:
    """Write both towers in several precisions, and measure each.

    The float32 files have to be the model's. Any other that is not, that onnxruntime cannot load,
    or that costs too much recall or accuracy, is taken away again and the reason kept.

    Args:
        model: on the CPU.
        folder: the model folder.
        precisions: names of :data:`ptft.artifact.PRECISIONS`, fp32 among them.
        quality: measures recall and accuracy; absent: nothing does.
        max_loss: points of 100 that a file may cost. The text tower's is measured with the model's
            own image tower, the image tower's with the text tower of its precision.
        pictures: (N, 3, H, W), normalised: from which 8 bits are calibrated; absent: the pictures
            of the parity check.
        say: told which file is being made.

    Raises:
        ExportError: a tower cannot be exported, or onnxruntime cannot run its float32 file.
        ParityError: a float32 file's outputs are not the model's.
    """
    written = Written()
    with evaluating(model):
        towers = (
            (FolderFiles.TEXT_ONNX, text_tower(model), text_batches(model)),
            (FolderFiles.VISION_ONNX, image_tower(model), image_batches(model)),
        )
        if pictures is None:
            pictures = image_batches(model)["five"]
        for file, tower, batches in towers:
            expected = expected_outputs(tower, batches)
            say(f"{file}: exporting it")
            write_graph(tower, folder / file)
            for name in precisions:
                tolerance = TOLERANCE[name]
                path = folder / tower_file(file, name)
                relative = path.relative_to(folder).as_posix()
                say(f"{relative}: {_HOW[name]}holding it against torch, measuring it")
                try:
                    _convert(name, path, folder / file, pictures)
                    check_axes(path, tower)
                    parity = measure_parity(path, batches, expected, tolerance=tolerance)
                    if quality is not None:
                        text = folder / tower_file(FolderFiles.TEXT_ONNX, name)
                        bound = math.inf if name == "fp32" else max_loss
                        parity = _measured(parity, quality, path, text, bound)
                    written.parity[relative] = parity
                except (ExportError, ParityError, ModelError) as error:
                    if name == "fp32":
                        raise
                    for part in (path, path.with_name(f"{path.name}_data")):
                        part.unlink(missing_ok=True)
                    written.left_out[relative] = str(error)
    return written


def _convert(name: str, path: Path, plain: Path, pictures: NDArray[np.float32]) -> None:
    """Write ``path`` in a precision from the float32 file.

    Raises:
        ExportError: the tower has something that cannot be converted.
    """
    try:
        if name == "fp16":
            write_half(path, plain)
        elif name == "int8":
            write_int8(path, plain, pictures)
    except Exception as error:  # onnxruntime's converters raise many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{path.name}: cannot be converted: {reason[0]}") from error


def _measured(parity: Parity, quality: Quality, path: Path, text: Path, max_loss: float) -> Parity:
    """The same with what the file costs on the recipe's evaluations.

    Raises:
        ParityError: that is more than ``max_loss``.
    """
    tower = "text" if path == text else "image"
    if not quality.reads(tower):
        return parity
    if tower == "text":
        change = quality.change(text=path)
    else:
        change = quality.change(image=path, text=text if text.is_file() else None)
    if not change.lost <= max_loss:
        raise ParityError(
            f"{path.name}: loses {change.lost:.2f} points of recall or accuracy; "
            f"allowed: {max_loss:g}"
        )
    return replace(parity, change=change.figures, lost=change.lost)


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
