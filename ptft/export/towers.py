"""The towers of a model as ONNX files, and its detector, each held against torch first."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptft.artifact import FolderFiles, tower_file
from ptft.errors import ExportError, ModelError, ParityError
from ptft.evaluate.embed import evaluating
from ptft.export.graph import Tower, check_axes, write_graph
from ptft.export.parity import TEXTS, Parity, golden_pictures, measure_parity
from ptft.export.quality import Quality
from ptft.model import DualEncoder
from ptft.onnx.golden import TOLERANCE
from ptft.onnx.processor import saturation_note
from ptft.onnx.quantise import convert_apart

__all__ = [
    "MAX_LOSS",
    "Precisions",
    "Written",
    "expected_outputs",
    "image_tower",
    "text_tower",
    "towers_of",
    "write_towers",
]


@dataclass
class Written:
    """What came of writing the towers.

    Attributes:
        parity: file name -> how far it is from torch.
        left_out: file name -> why it was not kept.
    """

    parity: dict[str, Parity] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


_KINDS = {
    FolderFiles.TEXT_ONNX: "text",
    FolderFiles.VISION_ONNX: "image",
    FolderFiles.DETECT_ONNX: "detect",
}
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


class _DetectorTower(nn.Module):
    """The image tower with the head for boxes, without the queries: rows of places."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        assert model.detector is not None
        self.image = model.image
        self.detector = model.detector

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.detector.rows(self.image, pixel_values)


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


def detector_tower(model: DualEncoder) -> Tower:
    """pixel_values float32 (B, 3, H, W) -> places (B, N, D + 6), any B; see
    :mod:`ptft.onnx.boxes`."""
    plain = image_tower(model)
    return replace(plain, module=_DetectorTower(model).eval(), output_name="places")


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


def towers_of(model: DualEncoder) -> dict[str, Tower]:
    """Every tower of a model by its fp32 file's name."""
    found = {FolderFiles.TEXT_ONNX: text_tower(model), FolderFiles.VISION_ONNX: image_tower(model)}
    if model.detector is not None:
        found[FolderFiles.DETECT_ONNX] = detector_tower(model)
    return found


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
    """Write the towers in several precisions, and measure each.

    The float32 files have to be the model's. Any other that is not, that onnxruntime cannot load,
    or that costs too much recall, accuracy or mAP, is taken away again and the reason kept; so is a
    detector of 8 bits whose mAP cannot be measured.

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
        images, texts = image_batches(model), text_batches(model)
        if pictures is None:
            pictures = images["five"]
        for file, tower in towers_of(model).items():
            say(f"{file}: exporting it")
            write_graph(tower, folder / file)
            batches: Mapping[str, NDArray[Any]] = texts if file == FolderFiles.TEXT_ONNX else images
            made = Precisions(folder, file, tower, batches, quality, max_loss, pictures)
            made.write(precisions, written, say)
    return written


@dataclass(frozen=True)
class Precisions:
    """A tower's files in several precisions, made of the float32 one that is there.

    Attributes:
        folder, file: where that is.
        tower: what it was exported from.
        batches: that every file is held against torch on.
        quality, max_loss, pictures: see :func:`write_towers`.
    """

    folder: Path
    file: str
    tower: Tower
    batches: Mapping[str, NDArray[Any]]
    quality: Quality | None
    max_loss: float
    pictures: NDArray[np.float32]

    def write(
        self, precisions: Sequence[str], written: Written, say: Callable[[str], None]
    ) -> None:
        """Make each, hold it against torch and measure it; what comes of it goes to ``written``.

        Raises:
            ExportError, ParityError: of the float32 file.
        """
        expected = expected_outputs(self.tower, self.batches)
        for name in precisions:
            path = self.folder / tower_file(self.file, name)
            relative = path.relative_to(self.folder).as_posix()
            say(f"{relative}: {_HOW[name]}holding it against torch, measuring it")
            try:
                if name != "fp32":
                    convert_apart(name, path, self.folder / self.file, self.pictures)
                check_axes(path, self.tower)
                parity = measure_parity(path, self.batches, expected, tolerance=TOLERANCE[name])
                written.parity[relative] = self._measured(parity, name, path)
            except (ExportError, ParityError, ModelError) as error:
                if name == "fp32":
                    raise
                for part in (path, path.with_name(f"{path.name}_data")):
                    part.unlink(missing_ok=True)
                note = saturation_note(name) if isinstance(error, ParityError) else ""
                written.left_out[relative] = f"{error}{note}"

    def _measured(self, parity: Parity, name: str, path: Path) -> Parity:
        """The same with what the file costs on the recipe's evaluations.

        Raises:
            ParityError: that is more than ``max_loss``, or has to be known and is not.
        """
        kind, quality = _KINDS[self.file], self.quality
        if quality is None or not quality.reads(kind):
            if (kind, name) == ("detect", "int8"):
                why = (quality and quality.reason) or "no evaluation of the recipe detects"
                raise ParityError(f"{path.name}: its mAP is not measured: {why}")
            return parity
        files, text = {kind: path}, self.folder / tower_file(FolderFiles.TEXT_ONNX, name)
        if kind != "text" and text.is_file():
            files["text"] = text
        change = quality.change(**files)
        if not change.lost <= (math.inf if name == "fp32" else self.max_loss):
            what = "mAP" if kind == "detect" else "recall or accuracy"
            raise ParityError(
                f"{path.name}: loses {change.lost:.2f} points of {what}; allowed: {self.max_loss:g}"
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
def expected_outputs(
    tower: Tower, batches: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    """What torch makes of each batch: (B, D), or (B, N, D + 6)."""
    return {
        name: tower.module(torch.from_numpy(np.ascontiguousarray(batch))).numpy()
        for name, batch in batches.items()
    }
