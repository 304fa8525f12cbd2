"""A model folder on onnxruntime: images and texts to embeddings, without torch.

The service answers with it, and ``ptft verify`` runs it. Letters in shapes: B batch, D width of the
embeddings, L tokens of a text, C classes, W width of what a head reads: D, or 2D, N places of a
detector.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptft.artifact import FolderFiles, ModelInfo, tower_file
from ptft.errors import ArtifactError
from ptft.files.arrays import read_arrays
from ptft.model_record import check_tokenizer_values
from ptft.onnx.boxes import MORE, sigmoid
from ptft.onnx.check import check_onnx_file
from ptft.onnx.counting import Counting
from ptft.onnx.provider import ON_GPU, Provider
from ptft.onnx.session import Session
from ptft.preprocess import ImagePreprocess, TextTokenizer

__all__ = [
    "OnnxModel",
    "check_recorded",
    "class_probabilities",
    "softmax",
    "tower_names",
]

_MAX_VALUES = 2**29  # of one-hot rows of a Tip-Adapter: 2 GiB
_ANY = Provider()


class OnnxModel:
    """The towers, what goes before them, and the head of a classifier if there is one.

    Args:
        folder: a model folder as ``ptft export`` writes it, already verified.
        info: its ``ptft.json``.
        precision: fp32, fp16 or int8.
        threads: of each tower.
        provider: where onnxruntime runs it.

    A file that ``info`` does not record is not opened.

    Raises:
        ArtifactError: a file is not recorded, has what none may have (:mod:`ptft.onnx.check`), or
            onnxruntime cannot load it.
        UsageError: the provider that is asked for is not there.
        ModelError: the tokenizer or the preprocessing is none that is read here.
    """

    def __init__(
        self,
        folder: Path,
        info: ModelInfo,
        precision: str,
        threads: int,
        provider: Provider = _ANY,
    ) -> None:
        self.info = info
        self.precision = precision
        self.preprocess = ImagePreprocess.from_config(info.preprocess)
        if self.preprocess.size != info.image_size:
            raise ArtifactError(
                f"{folder / FolderFiles.INFO}: preprocess.size: {self.preprocess.size}; allowed: "
                f"image_size, {info.image_size}"
            )
        check_recorded(folder, info, FolderFiles.TOKENIZER)
        check_tokenizer_values(info.tokenizer, f"{folder / FolderFiles.INFO}: tokenizer")
        self.tokenizer = TextTokenizer(folder / FolderFiles.TOKENIZER, **info.tokenizer)
        self._image_tower, self._text_tower = (
            _tower(folder, info, name, precision, threads, provider)
            for name in (FolderFiles.VISION_ONNX, FolderFiles.TEXT_ONNX)
        )
        self._head = _load_head(folder, info)
        self._detector: Session | None = None
        if info.task == "detect":
            name = FolderFiles.DETECT_ONNX
            self._detector = _tower(folder, info, name, precision, threads, provider, rank=3)

    @property
    def provider(self) -> str:
        """What onnxruntime runs the towers on, by its name."""
        return self._image_tower.provider

    @property
    def on_gpu(self) -> bool:
        """Whether that is a GPU."""
        return self.provider in ON_GPU

    @property
    def has_head(self) -> bool:
        """Whether the model is a classifier, with classes of its own."""
        return self._head is not None

    @property
    def has_detector(self) -> bool:
        """Whether the model tells boxes."""
        return self._detector is not None

    @property
    def counting(self) -> Counting | None:
        """By what it counts, of a detector whose training chose that."""
        said = self.info.counting
        return None if said is None or not self.has_detector else Counting.from_dict(said)

    def detect_places(
        self, images: Sequence[NDArray[np.float32]] | NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """B preprocessed images (3, H, W) to the rows of their places (B, N, D + 6), see
        :mod:`ptft.onnx.boxes`.

        Raises:
            ArtifactError: the detector gives rows of another width.
        """
        assert self._detector is not None
        batch = images if isinstance(images, np.ndarray) else np.stack(images)
        rows = self._detector(batch)
        if rows.shape[2] != self.info.embed_dim + MORE:
            raise ArtifactError(
                f"the detector gives rows of {rows.shape[2]} numbers; allowed: embed_dim and "
                f"{MORE}, {self.info.embed_dim + MORE}"
            )
        return rows

    def encode_images(
        self, images: Sequence[NDArray[np.float32]] | NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """B preprocessed images (3, H, W) to L2-normalised embeddings (B, D)."""
        batch = images if isinstance(images, np.ndarray) else np.stack(images)
        return _normalise(self._image_tower(batch))

    def encode_texts(self, tokens: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """B rows of token ids (context length,) to L2-normalised embeddings (B, D)."""
        return _normalise(self._text_tower(self.tokenizer.trim(np.stack(tokens))))

    def head_input(
        self, image_bd: NDArray[np.float32] | None, text_bd: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """What the head reads of embeddings (B, D), as ``info.reads`` says: one of them, or both,
        (B, 2D), the image's before the text's."""
        given = {"image": [image_bd], "text": [text_bd], "both": [image_bd, text_bd]}
        parts = [part for part in given[self.info.reads] if part is not None]
        assert len(parts) == len(given[self.info.reads]), "the caller gives what is read"
        return np.concatenate(parts, axis=1)

    def head_probabilities(self, input_bw: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the head reads (B, W) to probabilities (B, C) of ``info.classes``.

        As ``ptft.model.DualEncoder.class_logits``: exp(logit_scale) * (f . W^T) + b, and of a
        Tip-Adapter alpha * exp(-beta * (1 - f . keys^T)) times the keys' one-hot labels; then a
        softmax, or where the classes do not exclude each other a sigmoid of each.
        """
        assert self._head is not None
        head = self._head
        logits_bc = self.info.logit_scale * (input_bw @ head["weight"].T) + head["bias"]
        if "keys" in head:
            near_bk = np.exp(-head["beta"] * (1.0 - input_bw @ head["keys"].T))
            logits_bc += head["alpha"] * (near_bk @ head["values"])
        return class_probabilities(logits_bc, each=bool(self.info.thresholds))

    def told(self, probabilities_c: NDArray[np.float32]) -> list[str]:
        """Of classes that do not exclude each other those that reach their thresholds, the most
        probable first."""
        reached = np.flatnonzero(probabilities_c >= np.array(self.info.thresholds))
        order = np.argsort(-probabilities_c[reached], kind="stable")
        return [self.info.classes[place] for place in reached[order].tolist()]

    def zero_shot_probabilities(
        self, input_bw: NDArray[np.float32], class_cd: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What a head would read (B, W) and embeddings of classes (C, D) to probabilities (B, C).

        Of both embeddings the two scores are averaged.
        The softmax over the classes, as CLIP has it (section 3.1.2 of its paper). A logit bias
        (SigLIP) shifts all classes alike and so drops out.
        """
        rows_cw = class_cd
        if self.info.reads == "both":
            rows_cw = np.concatenate([class_cd, class_cd], axis=1) * np.float32(0.5)
        return softmax(self.info.logit_scale * (input_bw @ rows_cw.T))


def tower_names(info: ModelInfo) -> tuple[str, ...]:
    """The fp32 files of a model's towers; a detector has one more."""
    towers = (FolderFiles.TEXT_ONNX, FolderFiles.VISION_ONNX)
    return (*towers, FolderFiles.DETECT_ONNX) if info.task == "detect" else towers


def _tower(
    folder: Path,
    info: ModelInfo,
    name: str,
    precision: str,
    threads: int,
    provider: Provider,
    rank: int = 2,
) -> Session:
    """One ONNX file: its input to its output."""
    name = tower_file(name, precision)
    check_recorded(folder, info, name)
    within = name.rpartition("/")[0] + "/"
    check_onnx_file(folder / name, recorded={n.removeprefix(within) for n in info.files})
    return Session(folder / name, threads, provider, rank)


def check_recorded(folder: Path, info: ModelInfo, name: str) -> None:
    """Refuse to open what the digest does not cover.

    Raises:
        ArtifactError: ``ptft.json`` does not record the file.
    """
    if name not in info.files:
        raise ArtifactError(
            f"{folder / name}: {FolderFiles.INFO} does not record it, and what is not recorded is "
            "not opened; export the model again"
        )


def _load_head(folder: Path, info: ModelInfo) -> dict[str, NDArray[np.float32]] | None:
    """The tensors of the head; in place of its labels their one-hot rows, ``values`` (K, C)."""
    path = folder / FolderFiles.HEAD
    if FolderFiles.HEAD not in info.files:
        if info.task == "classify":
            raise ArtifactError(f"{path}: not recorded; the model is a classifier")
        return None
    tensors = read_arrays(path)
    classes, width = len(info.classes), info.embed_dim * (2 if info.reads == "both" else 1)
    shapes: dict[str, tuple[int, ...]] = {"weight": (classes, width), "bias": (classes,)}
    labels = tensors.pop("labels", None)
    if labels is not None:
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ArtifactError(f"{path}: labels {labels.dtype}{labels.shape}; allowed: int64 (K,)")
        shapes |= {"keys": (len(labels), width), "alpha": (1,), "beta": (1,)}
    head = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    found = {name: tensor.shape for name, tensor in head.items()}
    if found != shapes:
        given = ", ".join(f"{name} {shape}" for name, shape in sorted(found.items()))
        raise ArtifactError(
            f"{path}: {given}; {FolderFiles.INFO} has {classes} classes and {width} dimensions"
        )
    if labels is not None:
        if not ((labels >= 0) & (labels < classes)).all():
            raise ArtifactError(f"{path}: labels; allowed: 0 to {classes - 1}")
        if len(labels) * classes > _MAX_VALUES:
            raise ArtifactError(
                f"{path}: {len(labels)} keys of {classes} classes; allowed: {_MAX_VALUES} in all"
            )
        head["values"] = np.eye(classes, dtype=np.float32)[labels]
    return head


def _normalise(features_bd: NDArray[np.float32]) -> NDArray[np.float32]:
    # 1e-12 is what torch.nn.functional.normalize has
    return features_bd / np.maximum(np.linalg.norm(features_bd, axis=1, keepdims=True), 1e-12)


def class_probabilities(logits_bc: NDArray[np.float32], *, each: bool) -> NDArray[np.float32]:
    """Logits (B, C) of a head to probabilities: by a softmax, or of ``each`` by itself; these are
    float64, for a threshold may lie nearer to 1 than float32 can tell."""
    return sigmoid(logits_bc.astype(np.float64)) if each else softmax(logits_bc)


def softmax(logits_bc: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (B, C) to probabilities."""
    exponentials = np.exp(logits_bc - logits_bc.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
