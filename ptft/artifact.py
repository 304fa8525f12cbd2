"""File names and metadata of the two folders that ptft writes: the run and the model folder.

Each artefact records the digest of the one before it::

    recipe --recipe digest--> run (run.json) --weights digest--> model folder (ptft.json) -> service

A mix of several models (mix.json) stands where a run does, and records the weights of each.

Nothing here imports torch: the service reads a model folder through this module alone.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from ptft.errors import ArtifactError, DigestError
from ptft.files.atomic import write_atomic
from ptft.files.bounds import parse_json, read_bytes, shown
from ptft.files.digests import HeldFiles, check_digests, file_digests, file_sha256
from ptft.model_record import MIX, check_model_values

__all__ = [
    "FORMAT",
    "PICKLES",
    "PRECISIONS",
    "FolderFiles",
    "GoldenKeys",
    "ModelInfo",
    "RunFiles",
    "file_sha256",
    "hash_files",
    "read_as",
    "read_json",
    "read_model_info",
    "tower_file",
    "verify_files",
    "write_atomic",
    "write_json",
    "write_model_info",
]

T = TypeVar("T")

FORMAT = 1  # of ptft.json; a reader refuses a newer one
_LATER: dict[str, Any] = {
    "published_recipe": "",
    "matryoshka": [],
    "texts": "yes",
    "texts_reason": "",
    "aligned": None,
    "thresholds": [],
    "nms": None,
    "counting": None,
}

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib"})
"""Endings of files that may run code when the usual library reads them."""

PRECISIONS = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}
"""Name of a precision -> what stands before ``.onnx`` in the names of its files."""


def tower_file(name: str, precision: str) -> str:
    """Name of a tower's file by that of its fp32 file and a precision."""
    return name.replace(".onnx", f"{PRECISIONS[precision]}.onnx")


class RunFiles:
    """Names inside a run folder."""

    RECIPE = "recipe.yaml"  # resolved: running it again gives the same weights
    BEGAN = "recipe-began.yaml"  # what it began with, where a changed recipe was accepted later
    SPEC = "model.json"  # beside weights by ptft's own names: what they are of
    WEIGHTS = "model.safetensors"  # those, where one file has them all
    RUN = "run.json"  # digests, status, versions, steps
    LOG = "metrics.jsonl"  # one line each run.log_every steps, and one an evaluation
    METRICS = "metrics.json"  # what the last evaluation measured
    DATA = "data.safetensors"  # what the data held when the run began: a hash a sample, names
    STAGES = "stages.json"  # of a sequence: what each stage's model measures on every domain
    STAGES_TABLE = "stages.md"  # the same for people
    CURVES = "curves.png"
    PAGE = "page.html"  # the run for people, in one file
    NEIGHBOURS = "neighbours.json"  # what the model found nearest, before and after training
    SKIPPED = "skipped.jsonl"  # samples that could not be read: name, reason, fault
    BAD_BATCH = "bad_batch.json"  # the batch at which a run stopped: its loss was not finite, say
    LOCK = ".lock"  # held by the process that trains here
    TENSORBOARD = "tensorboard"
    CHECKPOINTS = "checkpoints"  # checkpoints/step-00000100/
    FINAL = "final"  # final/: the trained model alone, once training is done; adapters merged
    ADAPTER = "adapter"  # adapter/: what learned alone, where adapt.kind is an adapter
    MIX = MIX  # beside a model that `ptft mix` made: see ptft.model_record.MixRecord


class FolderFiles:
    """Names inside a model folder, which is also the repository on the Hub."""

    OPEN_CLIP_CONFIG = "open_clip_config.json"
    OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
    CONFIG = "config.json"  # of transformers, with timm's keys beside
    TRANSFORMERS_WEIGHTS = "model.safetensors"
    TOKENIZER = "tokenizer.json"
    PREPROCESSOR = "preprocessor_config.json"
    TEXT_ONNX = "onnx/text_model.onnx"
    VISION_ONNX = "onnx/vision_model.onnx"
    DETECT_ONNX = "onnx/detector_model.onnx"  # detectors, see ptft.onnx.boxes
    OWLVIT_ONNX = "onnx/model.onnx"  # detectors that OWL-ViT is: boxes of given texts, in one
    PREPROCESS_ONNX = "onnx/preprocess.onnx"  # uint8 (height, width, 3) -> pixel_values
    HEAD = "head.safetensors"  # classifiers: weight (C, W), bias (C,); logits of what
    # ModelInfo.reads names, f of W numbers: ModelInfo.logit_scale * f @ weight.T + bias; of a
    # Tip-Adapter also keys (K, D), labels (K,), alpha (1,), beta (1,): plus
    # alpha * exp(-beta * (1 - f @ keys.T)) @ the one-hot labels
    HEAD_CACHE = frozenset({"keys", "labels", "alpha", "beta"})
    DETECTOR = "detector.safetensors"  # detectors: the head for boxes, by names of its own
    ADAPTER = "adapter"  # what learned alone, where an adapter was trained: the base is not in it
    INFO = "ptft.json"
    RECIPE = "recipe.yaml"
    METRICS = "metrics.json"
    MIX = RunFiles.MIX  # of a model that is a mix
    GOLDEN = "golden.safetensors"  # see GoldenKeys
    SKETCH = "sketch.safetensors"  # of the training embeddings, see ptft.sketch
    CARD = "README.md"
    CURVES, EXAMPLES = "assets/curves.png", "assets/examples.png"  # that the card shows
    PULLED = ".pulled.sha256"  # of INFO and CARD as they were pulled, for `sha256sum -c`
    PARTS = ".pulled.json"  # what was not pulled, on purpose: see ptft.onnx.served
    SIGNATURE = "model.sig"  # over all but the card: see ptft.signing
    BOM = "model.cdx.json"  # CycloneDX: files, data sets, base, licence

    UNHASHED = frozenset({INFO, CARD, SIGNATURE, BOM, ".gitattributes"})
    """Not in the digest: the record itself, what is said of it, what people and the Hub edit."""


class GoldenKeys:
    """Names inside ``golden.safetensors``: inputs, and what the checkpoint itself made of them."""

    PIXELS = "pixels"  # uint8 (N, H, W, 3), at the model's size, not normalised
    TOKENS = "tokens"  # int64 (T, L), padded to the context length
    IMAGE_EMBEDS = "image_embeds"  # float32 (N, D), not normalised
    TEXT_EMBEDS = "text_embeds"  # float32 (T, D), not normalised
    CLASS_LOGITS = "class_logits"  # float32, classifiers only: (N, C) of the pictures, (T, C) of
    # the texts, or of both (min(N, T), C), the first pictures with the first texts
    CLASS_THRESHOLDS = "class_thresholds"  # float64 (C,), of ModelInfo.thresholds, or absent
    DETECT_LOGITS, DETECT_BOXES = "detect_logits", "detect_boxes"  # float32 (N, P, T), (N, P, 4)
    TEXTS = "texts"  # in the file's metadata: a JSON list of the T texts


@dataclass(frozen=True)
class ModelInfo:
    """``ptft.json``: what a model folder holds and what it came from.

    Attributes:
        name: of the model.
        task: ``embed`` (clip, siglip), ``classify`` or ``detect``.
        embed_dim: width D of the joint space.
        context_length: longest text in tokens.
        image_size: height and width in pixels.
        logit_scale: exp of the learned log scale; multiplies cosine similarities.
        logit_bias: added after scaling (SigLIP), 0 otherwise.
        classes: names of the head's rows in their order, of boxes, or of captions; or none.
        templates: prompts that made the head or the captions, or that zero-shot evaluation used;
            ``{}`` is the class.
        thresholds: of a classifier that tells each class by itself, with a sigmoid of its logits:
            the probability from which each is told; empty: one class, by a softmax.
        nms: of a detector, the IoU above which of two boxes of a class the surer alone is told,
            unless another is asked for; null: all are.
        counting: of one that counts, ``thresholds`` and ``nms`` of ``ptft.onnx.counting.Counting``.
        reads: what L2-normalised embedding the head is for; of both the image's comes first.
        tokenizer: keyword arguments of ``ptft.preprocess.TextTokenizer`` but for the file.
        preprocess: what ``ptft.preprocess.ImagePreprocess.from_config`` reads.
        recipe_digest, weights_digest: of the recipe and of the checkpoint's weights.
        matryoshka: widths to which embeddings may be cut, of a model that was trained for it
            (Kusupati et al. 2022); the cut is normalised again.
        published_recipe: digest of the folder's ``recipe.yaml``, where that leaves out folders of
            the machine that trained (:mod:`ptft.recipe.publication`); empty: ``recipe_digest``.
        texts, texts_reason: whether texts are of use (:mod:`ptft.export.quality`), and why not.
        aligned: false: images and texts never learned together, whatever its figures say now, so
            that a model that begins with this one has that on record; null: they did, or nobody
            knows.
        files: name -> {"sha256", "size"} of every file but those in ``FolderFiles.UNHASHED``.
        clients: library -> ``loads``, the class or architecture that it loads the folder as, or
            the ``reason`` why it cannot.
        versions: of ptft and the libraries that wrote it.
    """

    name: str
    task: str
    embed_dim: int
    context_length: int
    image_size: tuple[int, int]
    logit_scale: float
    logit_bias: float
    recipe_digest: str
    weights_digest: str
    tokenizer: dict[str, Any]
    preprocess: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    clients: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    reads: Literal["image", "text", "both"] = "image"
    published_recipe: str = ""
    matryoshka: list[int] = field(default_factory=list)
    texts: Literal["yes", "warned", "refused"] = "yes"
    texts_reason: str = ""
    aligned: Literal[False] | None = None
    thresholds: list[float] = field(default_factory=list)
    nms: float | None = None
    counting: dict[str, Any] | None = None
    format: int = FORMAT

    @cached_property
    def digest(self) -> str:
        """``sha256:`` and 64 hex digits over all that decides an answer: the names and bytes of
        the files, and every key here but ``name``, ``clients`` and ``versions``; nor a ``reads`` of
        ``image`` or what is not in folders from before (``_LATER``), so that they keep theirs."""
        decides = {
            key: value
            for key, value in asdict(self).items()
            if key not in ("files", "name", "clients", "versions")
            and (key, value) not in (("reads", "image"), *_LATER.items())
        }
        return _digest(self.files, decides)


def hash_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Digest and size of files in ``folder``; absent ``names``: all that count for the digest."""
    if names is None:
        found = (path for path in folder.rglob("*") if path.is_file())
        relative = (path.relative_to(folder) for path in found)
        names = sorted(
            path.as_posix()
            for path in relative
            if path.as_posix() not in FolderFiles.UNHASHED and not path.parts[0].startswith(".")
        )
    return file_digests(folder, names)


def _digest(files: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> str:
    lines = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files))
    text = lines + json.dumps(values, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def verify_files(
    folder: Path,
    files: Mapping[str, Mapping[str, Any]],
    *,
    record: str = FolderFiles.INFO,
    remember: bool = False,
) -> HeldFiles:
    """Compare every recorded file with what lies in ``folder``; see :mod:`ptft.files.digests`.

    Args:
        record: the file that records them, for the message.
        remember: do not read a file again that was found right and has not changed since.

    Returns: the files as they were then, for who opens them by name afterwards.

    Raises:
        DigestError: naming the first file that is absent, or whose bytes differ.
    """
    return check_digests(folder, files, record=record, remember=remember)


def write_json(path: Path, values: object) -> None:
    """Write JSON for people (indented), atomically."""
    write_atomic(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: the file is absent, too large or no JSON.
    """
    return parse_json(read_bytes(path, error=ArtifactError), path, error=ArtifactError)


def read_as(path: Path, kind: type[T]) -> T:
    """What a file holds, as ``kind``: a dataclass, or a dict or list of such.

    Raises:
        ArtifactError: it is absent, no JSON, or a value is of another type; in one line.
    """
    from pydantic import TypeAdapter, ValidationError

    values = read_json(path)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part)[:40] for part in first["loc"])
        raise ArtifactError(f"{path}: {key}: {first['msg']}") from None


def write_model_info(folder: Path, info: ModelInfo) -> None:
    """Write ``ptft.json``; the last file of a model folder, since it lists the others."""
    values = asdict(info)
    for key, plain in _LATER.items():
        if values[key] == plain:
            del values[key]  # so that a ptft from before there was one reads it
    write_json(folder / FolderFiles.INFO, {**values, "digest": info.digest})


def read_model_info(folder: Path) -> ModelInfo:
    """Read ``ptft.json`` of a model folder.

    Raises:
        ArtifactError: the folder has none, or one of a newer format, with other keys, or with
            a value out of bounds (:mod:`ptft.model_record`).
    """
    path = folder / FolderFiles.INFO
    if not path.is_file():
        raise ArtifactError(f"{folder}: no model folder (it has no {FolderFiles.INFO})")
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else values
        raise ArtifactError(f"{path}: format {shown(found)}; this ptft reads {FORMAT}")
    recorded = values.pop("digest", None)
    check_model_values(values, str(path))
    info = ModelInfo(**{**values, "image_size": tuple(values["image_size"])})
    if recorded != info.digest:
        raise DigestError(f"{path}: digest {shown(recorded)}; what it holds gives {info.digest}")
    return info
