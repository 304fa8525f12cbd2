"""Everything about a model but its weights, as JSON: enough to build it again without a network."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ptft.artifact import FolderFiles, RunFiles, read_json, write_json
from ptft.errors import ModelError
from ptft.files.bounds import Bounds, shown
from ptft.model_record import (
    MAX_CLASSES,
    MAX_SIDE,
    MAX_TEXT,
    check_counting,
    check_thresholds,
    check_tokenizer_values,
)
from ptft.preprocess import ImagePreprocess, TextTokenizer
from ptft.recipe import TOWERS_OF, Reads

__all__ = ["HF_TEXT", "SPEC", "ModelSpec", "load_spec", "save_spec"]

SPEC = RunFiles.SPEC
HF_TEXT = "hf_text"  # folder of a transformers text tower's config.json
_FORMAT = 1
_LATER = ("detector", "aligned", "thresholds")  # keys that are written where they say something


@dataclass(frozen=True)
class ModelSpec:
    """Architecture, preprocessing and tokenizer of a model, and where it comes from.

    Attributes:
        name: of the architecture, for people.
        config: open_clip's ``model_cfg`` of the architecture.
        preprocess: what the model does to a picture.
        tokenizer: what it does to a text.
        tokenizer_config: ``tokenizer_config.json`` for transformers.
        image_args: keyword arguments of ``timm.create_model`` beyond open_clip's.
        timm_input_size: height and width that a timm tower was resized to after it was built.
        open_clip_reason: why open_clip's own files cannot express the model; None where they can.
        open_clip_needs: what must be there for open_clip to load it, beside the model folder.
        base: what the weights started from; None: from scratch.
        classes: names in the order of the head's rows, or those that captions were made of; empty
            without either.
        templates: prompts that the head started from, or that made the captions.
        reads: what of a sample the head is for.
        adapter: the adapter in the model: its ``section`` of the recipe and the digest of the
            ``base`` it was put on; None without one, and once it is merged.
        detector: what the head for boxes is made of; None without one.
        thresholds: of a head that tells each class by itself, with a sigmoid: the probability from
            which each is told; None: one class a sample, by a softmax.
        aligned: whether images and texts ever learned together, by an objective that holds them
            against each other or in the weights that the model started from; None: not recorded.
    """

    name: str
    config: Mapping[str, Any]
    preprocess: ImagePreprocess
    tokenizer: TextTokenizer
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    image_args: Mapping[str, Any] = field(default_factory=dict)
    timm_input_size: tuple[int, int] | None = None
    open_clip_reason: str | None = None
    open_clip_needs: str | None = None
    base: str | None = None
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    reads: Reads = "image"
    adapter: Mapping[str, Any] | None = None
    detector: Mapping[str, Any] | None = None
    aligned: bool | None = None
    thresholds: tuple[float, ...] | None = None

    @property
    def embed_dim(self) -> int:
        """Width D of the joint space."""
        return int(self.config["embed_dim"])

    @property
    def head_width(self) -> int:
        """Width of the head's rows: D, or 2D where it reads both."""
        return self.embed_dim * len(TOWERS_OF[self.reads])

    @property
    def text_trimmable(self) -> bool:
        """Whether padding does not reach the text embedding, so that tokens may be trimmed."""
        return self.tokenizer.trimmable

    @property
    def text_stops(self) -> bool:
        """Whether the text tower reads nothing behind a text's first end mark.

        It attends to what came before alone, and pools there; see ``TextTokenizer.ends_early``.
        """
        text = self.config["text_cfg"]
        pools = text.get("pool_type", "argmax") in ("argmax", "eos")
        return pools and not text.get("no_causal_mask") and "hf_model_name" not in text

    @property
    def open_clip_config(self) -> dict[str, Any] | None:
        """``model_cfg`` for ``open_clip_config.json``; None: see ``open_clip_reason``."""
        if self.open_clip_reason is not None:
            return None
        return json.loads(json.dumps(dict(self.config)))

    def with_(self, **changes: Any) -> "ModelSpec":
        """The same with other values."""
        return replace(self, **changes)


def save_spec(spec: ModelSpec, folder: Path) -> None:
    """Write ``model.json`` and ``tokenizer.json``."""
    plain = {
        key: value
        for key, value in asdict(replace(spec, tokenizer=None)).items()  # type: ignore[arg-type]
        if key not in ("tokenizer", "preprocess") and not (key in _LATER and value is None)
    }
    values = {
        "format": _FORMAT,
        **plain,
        "preprocess": spec.preprocess.to_config(),
        "tokenizer": spec.tokenizer.kwargs(),
    }
    spec.tokenizer.save(folder / FolderFiles.TOKENIZER)
    write_json(folder / SPEC, values)


def load_spec(folder: Path) -> ModelSpec:
    """Read what :func:`save_spec` wrote.

    Raises:
        ArtifactError: a file is absent.
        ModelError: it is of a newer format, or damaged.
    """
    path = folder / SPEC
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        found = values.get("format") if isinstance(values, dict) else values
        raise ModelError(f"{path}: format {shown(found)}; this ptft reads {_FORMAT}")
    del values["format"]
    _check(values, str(path))
    try:
        size, thresholds = values.pop("timm_input_size"), values.pop("thresholds", None)
        preprocess = ImagePreprocess.from_config(values.pop("preprocess"))
        arguments = values.pop("tokenizer")
        check_tokenizer_values(arguments, f"{path}: tokenizer", ModelError)
        tokenizer = TextTokenizer(folder / FolderFiles.TOKENIZER, **arguments)
        return ModelSpec(
            preprocess=preprocess,
            tokenizer=tokenizer,
            timm_input_size=tuple(size) if size else None,
            classes=tuple(values.pop("classes")),
            templates=tuple(values.pop("templates")),
            thresholds=None if thresholds is None else tuple(thresholds),
            **values,
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path}: {error}") from None


def _check(values: dict[str, Any], where: str) -> None:
    """Types and bounds of what ``model.json`` says; the architecture is held where it is built."""
    bounds = Bounds(values, where, ModelError)
    bounds.keys(
        list(ModelSpec.__dataclass_fields__),
        ("name", "config", "preprocess", "tokenizer", "timm_input_size", "classes", "templates"),
    )
    for key in ("name", "open_clip_reason", "open_clip_needs", "base"):
        bounds.text(key, MAX_TEXT, none=key != "name")
    for key in ("config", "preprocess", "tokenizer_config", "image_args"):
        Bounds(values.get(key, {}), f"{where}: {key}", ModelError)
    for key in ("classes", "templates"):
        bounds.texts(key, MAX_CLASSES, MAX_TEXT)
    bounds.choice("reads", tuple(TOWERS_OF))
    if values.get("aligned") is not None:
        bounds.flag("aligned")
    if values.get("thresholds") is not None:
        check_thresholds(values, bounds)
    size = values["timm_input_size"]
    if size is not None and (not isinstance(size, list) or len(size) != 2):
        bounds.refuse("timm_input_size", size, "null, or height and width")
    for side in size or ():
        bounds.check_whole(side, "timm_input_size", 1, MAX_SIDE)
    if values.get("adapter") is not None:
        adapter = Bounds(values["adapter"], f"{where}: adapter", ModelError)
        adapter.keys(("section", "base"), ("section", "base"))
        Bounds(adapter.values["section"], f"{where}: adapter.section", ModelError)
        adapter.text("base", 500)
    if values.get("detector") is not None:
        detector = Bounds(values["detector"], f"{where}: detector", ModelError)
        keys = ("kind", "maps", "width", "classes", "templates")
        detector.keys((*keys, "counting", "nms"), keys)
        detector.choice("kind", ("patches", "maps"))
        detector.whole("maps", 1, 5)
        detector.whole("width", 1, MAX_SIDE)
        for key in ("classes", "templates"):
            detector.texts(key, MAX_CLASSES, MAX_TEXT)
        check_counting(detector.values, detector, f"{where}: detector.counting")
