"""Golden embeddings: read, and hold what somebody else made of the same inputs against them.

Digests show that bytes are the right ones. Golden embeddings show that what runs here, or answers
there, makes of them what the checkpoint did. :mod:`ptft.export.parity` writes them; the
service at its start and ``ptft verify`` compare with them.
Letters in shapes: N pictures, T texts, D width of the embeddings, C classes, P places.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptft.artifact import FolderFiles, GoldenKeys
from ptft.errors import ArtifactError
from ptft.files.arrays import read_arrays, read_metadata
from ptft.files.bounds import Bounds
from ptft.onnx.boxes import place_boxes, place_logits, sigmoid
from ptft.onnx.model import OnnxModel, class_probabilities
from ptft.onnx.processor import saturation_note

__all__ = [
    "TOLERANCE",
    "Golden",
    "allowed",
    "check_golden",
    "compare_golden",
    "differences",
    "hold_golden",
    "read_golden",
    "run_onnx",
]

_MAX_TEXTS, _MAX_TEXT = 1000, 10_000  # texts or pictures, and characters of a text
_KINDS = {  # tensor -> its type and the number of its dimensions
    GoldenKeys.PIXELS: ("uint8", 4),
    GoldenKeys.TOKENS: ("int64", 2),
    GoldenKeys.IMAGE_EMBEDS: ("float32", 2),
    GoldenKeys.TEXT_EMBEDS: ("float32", 2),
    GoldenKeys.CLASS_LOGITS: ("float32", 2),
    GoldenKeys.CLASS_THRESHOLDS: ("float64", 1),
    GoldenKeys.DETECT_LOGITS: ("float32", 3),
    GoldenKeys.DETECT_BOXES: ("float32", 3),
}
_OPTIONAL = (
    *(GoldenKeys.CLASS_LOGITS, GoldenKeys.CLASS_THRESHOLDS),
    *(GoldenKeys.DETECT_LOGITS, GoldenKeys.DETECT_BOXES),
)
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.15}
"""Largest difference of an entry of an L2-normalised embedding, by precision.

fp32 is the exporter's own bound. The others only catch what is broken: how much of the model's
quality a precision costs is measured when it is exported.
"""


@dataclass(frozen=True)
class Golden:
    """What :data:`ptft.artifact.FolderFiles.GOLDEN` holds.

    Attributes:
        pixels: uint8 (N, H, W, 3).
        texts: the T texts.
        tokens: int64 (T, L), L the context length.
        image_embeds: float32 (N, D), not normalised.
        text_embeds: float32 (T, D), not normalised.
        class_logits: float32 (N, C), of a head that reads texts (T, C), of one that reads both
            (min(N, T), C), the first pictures with the first texts; or None without a head.
        detect_logits, detect_boxes: float32 (N, P, T), of each text at each place of a picture, and
            (N, P, 4), centre, width and height as shares of it; or None without a detector.
        class_thresholds: of classes that do not exclude each other, or None.
    """

    pixels: NDArray[np.uint8]
    texts: Sequence[str]
    tokens: NDArray[np.int64]
    image_embeds: NDArray[np.float32]
    text_embeds: NDArray[np.float32]
    class_logits: NDArray[np.float32] | None
    detect_logits: NDArray[np.float32] | None = None
    detect_boxes: NDArray[np.float32] | None = None
    class_thresholds: NDArray[np.float64] | None = None

    @property
    def class_probabilities(self) -> NDArray[np.float32]:
        """What ``class_logits`` are as probabilities."""
        assert self.class_logits is not None
        return class_probabilities(self.class_logits, each=self.class_thresholds is not None)

    def check_thresholds(self, recorded: Sequence[float]) -> None:
        """Hold the thresholds that a model tells its classes by against the checkpoint's.

        Raises:
            ArtifactError: naming the first that differs.
        """
        known = () if self.class_thresholds is None else tuple(self.class_thresholds.tolist())
        if known != tuple(recorded):
            pairs = zip(known, recorded, strict=False)
            place = next((n for n, (one, own) in enumerate(pairs) if one != own), None)
            what = f"{len(recorded)} thresholds; the checkpoint had {len(known)}"
            if place is not None:
                what = f"threshold {recorded[place]} of class {place}, not {known[place]}"
            raise ArtifactError(f"{what}: other classes would be told")

    def check_told(self, told: Sequence[Sequence[int]], precision: str) -> None:
        """Hold the classes that were told of each input against what the logits say, but for those
        that are as near to a threshold as the precision may move them.

        Raises:
            ArtifactError: naming the first input and class.
        """
        if self.class_thresholds is None:
            return
        beyond_nc = self.class_probabilities - self.class_thresholds
        near = allowed(GoldenKeys.CLASS_LOGITS, precision)
        for place, (own, beyond_c) in enumerate(zip(told, beyond_nc, strict=True)):
            for number, beyond in enumerate(beyond_c.tolist()):
                if abs(beyond) > near and (beyond > 0) != (number in own):
                    raise ArtifactError(
                        f"input {place}: class {number} is {'not ' * (beyond > 0)}told, "
                        f"{abs(beyond):.3f} {'above' if beyond > 0 else 'below'} its threshold"
                    )

    def check_tokens(self, tokens: NDArray[np.int64]) -> None:
        """Hold the tokens of ``texts`` against the recorded ones.

        Raises:
            ArtifactError: naming the first text whose tokens differ.
        """
        if tokens.shape != self.tokens.shape:
            raise ArtifactError(f"tokens are {tokens.shape}; recorded: {self.tokens.shape}")
        rows = np.flatnonzero((tokens != self.tokens).any(axis=1))
        if rows.size:
            text = self.texts[rows[0]]
            raise ArtifactError(f"text {rows[0]} ({text:.40}) has other tokens here")


def read_golden(folder: Path) -> Golden:
    """The golden embeddings of a model folder.

    Raises:
        ArtifactError: the file is absent or damaged, or lacks a tensor.
    """
    path = folder / FolderFiles.GOLDEN
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; without it nothing shows that the model works here")
    tensors, texts = read_arrays(path), read_metadata(path, GoldenKeys.TEXTS)
    where = Bounds({GoldenKeys.TEXTS: texts}, str(path))
    where.texts(GoldenKeys.TEXTS, _MAX_TEXTS, _MAX_TEXT)
    for key, (kind, rank) in _KINDS.items():
        found = tensors.get(key)
        if found is None and key in _OPTIONAL:
            continue
        if found is None or found.dtype != kind or found.ndim != rank or not found.size:
            what = "absent" if found is None else f"{found.dtype}{found.shape}"
            raise ArtifactError(f"{path}: {key}: {what}; allowed: {kind} of {rank} dimensions")
        if not np.isfinite(found).all():
            raise ArtifactError(f"{path}: {key}: not finite; allowed: finite numbers")
    golden = Golden(
        pixels=tensors[GoldenKeys.PIXELS],
        texts=texts,
        tokens=tensors[GoldenKeys.TOKENS],
        image_embeds=tensors[GoldenKeys.IMAGE_EMBEDS],
        text_embeds=tensors[GoldenKeys.TEXT_EMBEDS],
        class_logits=tensors.get(GoldenKeys.CLASS_LOGITS),
        detect_logits=tensors.get(GoldenKeys.DETECT_LOGITS),
        detect_boxes=tensors.get(GoldenKeys.DETECT_BOXES),
        class_thresholds=tensors.get(GoldenKeys.CLASS_THRESHOLDS),
    )
    pictures, rows = len(golden.pixels), len(golden.tokens)
    if len(golden.image_embeds) != pictures or {rows, len(golden.text_embeds)} != {len(texts)}:
        raise ArtifactError(
            f"{path}: {pictures} pictures with {len(golden.image_embeds)} embeddings, {len(texts)} "
            f"texts with {rows} and {len(golden.text_embeds)}; allowed: as many"
        )
    _check_boxes(golden, str(path))
    if pictures > _MAX_TEXTS or golden.pixels.shape[-1] != 3:
        raise ArtifactError(
            f"{path}: pixels {golden.pixels.shape}; allowed: up to {_MAX_TEXTS} pictures in colour"
        )
    return golden


def _check_boxes(golden: Golden, path: str) -> None:
    """Whether what a detector found is of these pictures and texts."""
    logits, boxes = golden.detect_logits, golden.detect_boxes
    if logits is None and boxes is None:
        return
    count, texts = len(golden.pixels), len(golden.texts)
    if (
        logits is None
        or boxes is None
        or (
            logits.shape != (count, boxes.shape[1], texts)
            or boxes.shape != (count, logits.shape[1], 4)
        )
    ):
        found = [None if one is None else one.shape for one in (logits, boxes)]
        raise ArtifactError(
            f"{path}: {GoldenKeys.DETECT_LOGITS} and {GoldenKeys.DETECT_BOXES}: {found}; allowed: "
            f"({count}, places, {texts}) and ({count}, places, 4), or neither"
        )


def differences(
    golden: Golden,
    image_nd: NDArray[np.float32],
    text_td: NDArray[np.float32] | None,
    class_nc: NDArray[np.float32] | None,
    found: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> dict[str, float]:
    """Largest difference of an entry, by :class:`ptft.artifact.GoldenKeys`; NaN where one is NaN.

    Args:
        image_nd, text_td: L2-normalised embeddings of the golden inputs; None of texts that are
            not asked for.
        class_nc: probabilities of the classes, for what the head reads; None without a head.
        found: a detector's logits of the texts (N, P, T) and its boxes (N, P, 4); or None.

    Raises:
        ArtifactError: a shape is not the recorded one.
    """
    pairs = {GoldenKeys.IMAGE_EMBEDS: (image_nd, _unit(golden.image_embeds))}
    if text_td is not None:
        pairs[GoldenKeys.TEXT_EMBEDS] = (text_td, _unit(golden.text_embeds))
    if golden.class_logits is not None and class_nc is not None:
        pairs[GoldenKeys.CLASS_LOGITS] = (class_nc, golden.class_probabilities)
    if golden.detect_logits is not None and golden.detect_boxes is not None and found is not None:
        logits, boxes = found
        pairs[GoldenKeys.DETECT_LOGITS] = (sigmoid(logits), sigmoid(golden.detect_logits))
        pairs[GoldenKeys.DETECT_BOXES] = (boxes, golden.detect_boxes)
    for key, (mine, wanted) in pairs.items():
        if mine.shape != wanted.shape:
            raise ArtifactError(f"{key} has shape {wanted.shape}; the model gives {mine.shape}")
    return {key: float(np.abs(mine - wanted).max()) for key, (mine, wanted) in pairs.items()}


def allowed(key: str, precision: str) -> float:
    """The bound of a difference; of class probabilities a wider one, since a logit scale of 100
    turns a difference of 1e-4 in an embedding into one of 1e-2; a detector's is about 10."""
    wider = {GoldenKeys.CLASS_LOGITS: 100, GoldenKeys.DETECT_LOGITS: 10}
    return TOLERANCE[precision] * wider.get(key, 1)


def run_onnx(model: OnnxModel, golden: Golden) -> dict[str, float]:
    """What :func:`differences` says of a model on onnxruntime.

    Raises:
        ArtifactError: a text has other tokens, or an output another shape.
    """
    tokens = model.tokenizer(golden.texts)
    golden.check_tokens(tokens)
    image_nd = model.encode_images(list(model.preprocess.normalise(golden.pixels)))
    text_td = model.encode_texts(list(tokens))
    return compare_golden(model, golden, image_nd, text_td)


def compare_golden(
    model: OnnxModel,
    golden: Golden,
    image_nd: NDArray[np.float32],
    text_td: NDArray[np.float32],
    rows_npw: NDArray[np.float32] | None = None,
) -> dict[str, float]:
    """What :func:`differences` says of L2-normalised embeddings (N, D) and (T, D), of what the
    model's head makes of them, and of a detector's places.

    Args:
        rows_npw: what the model's detector gave of the pictures; absent: it is run here.

    Raises:
        ArtifactError: a shape is not the recorded one.
    """
    class_nc = None
    if model.has_head:
        both = min(len(image_nd), len(text_td)) if model.info.reads == "both" else None
        class_nc = model.head_probabilities(model.head_input(image_nd[:both], text_td[:both]))
        golden.check_thresholds(model.info.thresholds)
    found = None
    if model.has_detector:
        if golden.detect_logits is None:
            raise ArtifactError("no golden boxes; the model is a detector: export it again")
        if rows_npw is None:
            rows_npw = model.detect_places(model.preprocess.normalise(golden.pixels))
        found = (place_logits(rows_npw, text_td), place_boxes(rows_npw))
    return differences(golden, image_nd, text_td, class_nc, found)


def check_golden(model: OnnxModel, folder: Path) -> None:
    """Encode the golden inputs and compare, before a model may serve.

    Raises:
        ArtifactError: the file is absent, or an output is not the recorded one.
    """
    path, golden = folder / FolderFiles.GOLDEN, read_golden(folder)
    try:
        _hold(run_onnx(model, golden), model.precision)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def hold_golden(
    model: OnnxModel,
    golden: Golden,
    image_nd: NDArray[np.float32],
    text_td: NDArray[np.float32],
    rows_npw: NDArray[np.float32] | None = None,
) -> None:
    """Hold what a model made of the golden inputs, see :func:`compare_golden`.

    Raises:
        ArtifactError: an output is not the recorded one.
    """
    _hold(compare_golden(model, golden, image_nd, text_td, rows_npw), model.precision)


def _hold(found: Mapping[str, float], precision: str) -> None:
    for key, worst in found.items():
        bound = allowed(key, precision)
        if not worst <= bound:  # NaN is beyond it too
            raise ArtifactError(
                f"{key} differs by {worst:.2e} from what the checkpoint gave; allowed: {bound:g}"
                f"{saturation_note(precision)}"
            )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
