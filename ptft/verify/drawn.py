"""Inputs that nobody could prepare for: drawn anew at each verification, run by ONNX and by torch.

That answers agree on some inputs shows nothing of others. But whoever made the files does not know
which these are, least of all where they are the reader's own pictures and texts.
"""

import os
import random
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptft.artifact import GoldenKeys, ModelInfo
from ptft.errors import PtftError, SampleError, UsageError
from ptft.onnx.boxes import place_boxes, place_logits, sigmoid
from ptft.onnx.golden import TOLERANCE, allowed, read_golden
from ptft.onnx.model import OnnxModel
from ptft.onnx.served import precisions
from ptft.preprocess import ImagePreprocess, decode_image
from ptft.verify.link import Link, broken, holds, unchecked

__all__ = ["InputDraw", "check_drawn", "new_input_draw"]

_COUNT = 8  # pictures and texts
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_MOST = 1_000_000  # files that are looked at
_LONGEST = 2000  # characters of a text


@dataclass(frozen=True)
class InputDraw:
    """What is drawn.

    Attributes:
        seed: decides it; the same seed draws the same of the same data.
        data: a folder of pictures and ``.txt`` files (a text a line); None: noise and words.
    """

    seed: int
    data: Path | None = None

    @property
    def words(self) -> str:
        """How to draw it again, in words."""
        return f"seed {self.seed}" + (f", from {self.data}" if self.data is not None else "")


def new_input_draw(seed: int | None, data: Path | None) -> InputDraw:
    """A draw; without a seed a new one, which nobody knows beforehand.

    Raises:
        UsageError: the folder is none.
    """
    if data is not None and not data.is_dir():
        raise UsageError(f"--data {data}: no such folder; allowed: one of pictures and .txt files")
    return InputDraw(int.from_bytes(os.urandom(4), "little") if seed is None else seed, data)


def check_drawn(target: str, folder: Path, info: ModelInfo, draw: InputDraw) -> list[Link]:
    """Hold the ONNX files of each precision against the weights on torch."""
    names = precisions(info)
    if not names or find_spec("torch") is None:
        why = "torch is not installed; nothing to hold new answers against"
        return [unchecked("drawn", target, why)] if names else []
    import torch

    from ptft.model import load_model

    try:
        preprocess = ImagePreprocess.from_config(info.preprocess)
        pixels, texts = _inputs(draw, folder, preprocess)
        model = load_model(folder).float()
        tokens = model.spec.tokenizer(texts)
        with torch.no_grad():
            images = _unit(model.encode_image(torch.from_numpy(pixels)).numpy())
            rows = _unit(model.encode_text(torch.from_numpy(tokens)).numpy())
            if model.detector is not None:
                found = model.detect(torch.from_numpy(pixels), torch.from_numpy(rows))
    except PtftError as error:
        return [broken("drawn", target, error)]
    links = []
    for precision in names:
        name = f"drawn onnx {precision}"
        try:
            onnx = OnnxModel(folder, info, precision, 1)
            # one by one: eight bits scale a picture by its neighbours
            mine = np.concatenate([onnx.encode_images([one]) for one in pixels])
            theirs = np.concatenate([onnx.encode_texts([one]) for one in onnx.tokenizer(texts)])
        except PtftError as error:
            links.append(broken(name, target, error))
            continue
        worst = max(float(np.abs(mine - images).max()), float(np.abs(theirs - rows).max()))
        if model.detector is not None:
            places = np.concatenate([onnx.detect_places([one]) for one in pixels])
            scores = sigmoid(place_logits(places, theirs)) - found.logits.sigmoid().numpy()
            boxes = place_boxes(places) - found.boxes.numpy()
            scale = allowed(GoldenKeys.DETECT_LOGITS, "fp32") / TOLERANCE["fp32"]
            worst = float(np.max([worst, np.abs(scores).max() / scale, np.abs(boxes).max()]))
        detail = (
            f"answers {'agree' if worst <= TOLERANCE[precision] else 'differ'} on {len(pixels)} "
            f"pictures and {len(texts)} texts ({draw.words}): by {worst:.1e}; allowed: "
            f"{TOLERANCE[precision]:g}"
        )
        good = worst <= TOLERANCE[precision]  # NaN is not
        links.append(holds(name, target, detail) if good else broken(name, target, detail))
    return links


def _inputs(
    draw: InputDraw, folder: Path, preprocess: ImagePreprocess
) -> tuple[NDArray[np.float32], list[str]]:
    """Pictures (N, 3, H, W), normalised, and texts."""
    chance = random.Random(draw.seed)  # noqa: S311 - it is repeated on purpose
    words = sorted({word for text in read_golden(folder).texts for word in text.split()}) or ["a"]
    texts = [" ".join(chance.choices(words, k=chance.randint(1, 12))) for _ in range(_COUNT)]
    noise = np.random.default_rng(draw.seed)
    pictures = []
    for side in (2, 5, 16, 64, 3, 8, 32, 128)[:_COUNT]:
        small = Image.fromarray(noise.integers(0, 256, (side, side, 3), np.uint8))
        pictures.append(preprocess(small.resize((256, 256), Image.Resampling.BICUBIC)))
    if draw.data is not None:
        own, lines = _from_folder(draw.data, chance, preprocess)
        pictures, texts = own or pictures, lines or texts
    return np.stack(pictures), texts


def _from_folder(
    folder: Path, chance: random.Random, preprocess: ImagePreprocess
) -> tuple[list[NDArray[np.float32]], list[str]]:
    found: dict[str, list[Path]] = {"pictures": [], "texts": []}
    for count, path in enumerate(folder.rglob("*")):
        if count > _MOST:
            break
        if path.suffix.lower() in _PICTURES:
            found["pictures"].append(path)
        elif path.suffix.lower() == ".txt":
            found["texts"].append(path)
    if not any(found.values()):
        raise UsageError(f"--data {folder}: holds no pictures and no .txt files")
    for paths in found.values():
        paths.sort()
        chance.shuffle(paths)
    pictures: list[NDArray[np.float32]] = []
    for path in found["pictures"]:
        if len(pictures) == _COUNT:
            break
        try:
            read = decode_image(path.read_bytes(), name=str(path), reading=preprocess.reading)
            pictures.append(preprocess(read))
        except (SampleError, OSError):
            continue
    texts: list[str] = []
    for path in found["texts"][: 100 * _COUNT]:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line[:_LONGEST] for line in lines if line.strip()]
        if lines:
            texts.append(chance.choice(lines))
        if len(texts) == _COUNT:
            break
    return pictures, texts


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
