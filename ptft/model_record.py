"""What the keys of ``ptft.json`` and ``mix.json`` may be, and what others say of files: types,
bounds, names. And what ``mix.json`` is read as.

The bounds are far beyond any model that is in use, and small enough that no value is a danger.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptft.errors import ArtifactError, PtftError
from ptft.files.bounds import Bounds, check_names, parse_json, read_bytes, shown

__all__ = [
    "MAX_CLASSES",
    "MAX_CONTEXT",
    "MAX_SIDE",
    "MAX_TEXT",
    "MAX_WIDTH",
    "MIX",
    "MixParent",
    "MixRecord",
    "check_counting",
    "check_mix_values",
    "check_model_values",
    "check_thresholds",
    "check_tokenizer_values",
    "read_mix",
    "recorded_figures",
    "recorded_files",
]

MIX = "mix.json"  # beside a model that `ptft mix` made
MIX_FORMAT = 1  # of it; a reader refuses a newer one

MAX_WIDTH = 65_536  # of the joint space
MAX_CONTEXT = 65_536  # tokens of a text
MAX_SIDE = 16_384  # pixels of a picture's height and width
MAX_SCALE = 1e6  # of cosine similarities; CLIP's is 100
MAX_BIAS = 1e6  # of logits, either way; SigLIP's is -10 or so
MAX_CLASSES = 1_000_000
MAX_TEXT = 10_000  # characters of a class or a template
MAX_FILES = 10_000  # in a folder
MAX_BYTES = 2**44  # of one of them
MAX_ID = 2**31 - 1  # of a token

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = {
    *("name", "task", "embed_dim", "context_length", "image_size", "logit_scale", "logit_bias"),
    *("recipe_digest", "weights_digest", "tokenizer", "preprocess", "classes", "templates"),
    *("files", "clients", "versions", "reads", "published_recipe", "format"),
    *("matryoshka", "texts", "texts_reason", "aligned", "thresholds", "nms", "counting"),
}
_NEEDED = (
    *("name", "task", "embed_dim", "context_length", "image_size", "logit_scale", "logit_bias"),
    *("recipe_digest", "weights_digest", "tokenizer"),
)
_TOKENIZER = ("context_length", "kind", "clean", "pad_id", "pad_left", "zeroed_id", "trimmable")


def check_model_values(values: Any, where: str) -> None:
    """Hold what ``ptft.json`` says, but for its digest, to types and bounds.

    Raises:
        ArtifactError: naming ``where``, the key, its value and what is allowed.
    """
    bounds = Bounds(values, where)
    bounds.keys(sorted(_KEYS), _NEEDED)
    for key in ("name", "recipe_digest", "weights_digest", "published_recipe"):
        bounds.text(key, 500)
    bounds.choice("task", ("embed", "classify", "detect"))
    bounds.choice("reads", ("image", "text", "both"))
    bounds.choice("texts", ("yes", "warned", "refused"))
    bounds.text("texts_reason", MAX_TEXT)
    if values.get("aligned") not in (None, False):
        bounds.refuse("aligned", values["aligned"], "false or null")
    bounds.whole("embed_dim", 1, MAX_WIDTH)
    bounds.whole("context_length", 1, MAX_CONTEXT)
    size = values["image_size"]
    if not isinstance(size, list) or len(size) != 2:
        bounds.refuse("image_size", size, "a list of height and width")
    for side in size:
        bounds.check_whole(side, "image_size", 1, MAX_SIDE)
    bounds.number("logit_scale", 0.0, MAX_SCALE)
    bounds.number("logit_bias", -MAX_BIAS, MAX_BIAS)
    _check_widths(values, bounds)
    bounds.texts("classes", MAX_CLASSES, MAX_TEXT)
    if values.get("thresholds"):
        check_thresholds(values, bounds)
    check_counting(values, bounds, f"{where}: counting")
    bounds.texts("templates", MAX_CLASSES, MAX_TEXT)
    if Bounds(values["tokenizer"], f"{where}: tokenizer").values:  # {}: of no text tower
        check_tokenizer_values(values["tokenizer"], f"{where}: tokenizer")
        length = values["tokenizer"]["context_length"]
        if length != values["context_length"]:
            bounds.refuse("tokenizer.context_length", length, str(values["context_length"]))
    Bounds(values.get("preprocess", {}), f"{where}: preprocess")  # its reader holds the rest
    _check_files(values.get("files", {}), where)
    _check_notes(values, where)


def _check_widths(values: Any, bounds: Bounds) -> None:
    """The widths that a Matryoshka-trained embedding may be cut to."""
    widths = values.get("matryoshka", [])
    if not isinstance(widths, list):
        bounds.refuse("matryoshka", widths, "a list of widths")
    for width in widths:
        bounds.check_whole(width, "matryoshka", 1, values["embed_dim"])


def check_thresholds(values: Any, bounds: Bounds) -> None:
    """Hold ``thresholds`` to one probability a class.

    Raises:
        PtftError: as ``bounds`` has it.
    """
    found, count = values["thresholds"], len(values.get("classes", ()))
    if not isinstance(found, list) or len(found) != count:
        bounds.refuse("thresholds", found, f"a list of {count}, one a class")
    for one in found:
        if isinstance(one, bool) or not isinstance(one, int | float) or not 0.0 < one < 1.0:
            bounds.refuse("thresholds", one, "numbers above 0 and below 1")


def check_counting(values: Any, bounds: Bounds, where: str) -> None:
    """Hold a detector's ``nms`` and ``counting``, where it has them, to types and bounds.

    Args:
        bounds: of ``values``.
        where: what an error in ``counting`` names.

    Raises:
        PtftError: as ``bounds`` has it.
    """
    bounds.number("nms", 0.0, 1.0, none=True)
    if (said := values.get("counting")) is not None:
        own = Bounds(said, where, bounds.error)
        own.keys(("thresholds", "nms"), ("thresholds", "nms"))
        check_thresholds({**own.values, "classes": values.get("classes", [])}, own)
        own.number("nms", 0.0, 1.0, none=True)


def check_tokenizer_values(values: Any, where: str, error: type[PtftError] = ArtifactError) -> None:
    """Hold keyword arguments of ``TextTokenizer`` to types and bounds.

    Raises:
        error: naming ``where``, the key, its value and what is allowed.
    """
    bounds = Bounds(values, where, error)
    bounds.keys(_TOKENIZER, ("context_length",))
    bounds.whole("context_length", 1, MAX_CONTEXT)
    bounds.choice("kind", ("clip", "hf"))
    bounds.choice("clean", ("clip", "canonicalize", "whitespace", "none"))
    bounds.whole("pad_id", 0, MAX_ID)
    bounds.whole("zeroed_id", 0, MAX_ID, none=True)
    bounds.flag("pad_left")
    bounds.flag("trimmable")


def check_mix_values(values: Any, where: str) -> None:
    """Hold what ``mix.json`` says of weights and names to types and bounds.

    Raises:
        ArtifactError: naming ``where``, the key, its value and what is allowed.
    """
    bounds = Bounds(values, where)
    bounds.text("name", 500)
    if not _SHA256.fullmatch(str(values.get("weights_digest"))):
        bounds.refuse("weights_digest", values.get("weights_digest"), "64 hex digits")
    parents = values.get("parents")
    if not isinstance(parents, list) or not 1 <= len(parents) <= 1000:
        bounds.refuse("parents", parents, "a list of 1 to 1000")
    for index, parent in enumerate(parents or ()):
        one = Bounds(parent, f"{where}: parents[{index}]")
        for key in ("name", "weights_digest", "recipe_digest", "licence"):
            one.text(key, 500)
        one.text("hub", 500, none=True)
        one.number("share", -1e6, 1e6)
    if values.get("alpha") is not None:
        bounds.number("alpha", -1e6, 1e6)
    _check_files(values.get("files", {}), where)
    Bounds(values.get("evaluation", {}), f"{where}: evaluation")


def _check_files(files: Any, where: str) -> None:
    entries = Bounds(files, f"{where}: files")
    if len(files) > MAX_FILES:
        entries.refuse("files", len(files), f"at most {MAX_FILES}")
    check_names(files, f"{where}: files")
    for name, entry in files.items():
        one = Bounds(entry, f"{where}: files: {name}")
        one.keys(("sha256", "size"), ("sha256", "size"))
        one.whole("size", 0, MAX_BYTES)
        if not isinstance(entry["sha256"], str) or not _SHA256.fullmatch(entry["sha256"]):
            one.refuse("sha256", entry["sha256"], "64 hex digits")


def _check_notes(values: Any, where: str) -> None:
    """What is only shown: texts in one or two levels."""
    for key, levels in (("versions", 1), ("clients", 2)):
        top = Bounds(values.get(key, {}), f"{where}: {key}")
        for name, entry in top.values.items():
            top.check_text(name, "name", 500)
            if levels == 1:
                top.check_text(entry, name, 500)
                continue
            inner = Bounds(entry, f"{where}: {key}: {name}")
            for what, said in inner.values.items():
                inner.check_text(said, what, MAX_TEXT)


def recorded_figures(values: Any, where: str) -> dict[str, dict[str, Any]]:
    """Name of an evaluation -> its figures.

    Raises:
        ArtifactError: naming ``where``; they are no objects.
    """
    found = Bounds(values, where).values
    return {name: Bounds(one, f"{where}: {name[:80]!r}").values for name, one in found.items()}


def recorded_files(values: Any, path: Path) -> dict[str, Any]:
    """Name -> sha256 and size of the files of a checkpoint, or of a run's last model.

    Args:
        values: what ``state.json`` or ``run.json`` holds.
        path: of that file, for messages.

    Raises:
        ArtifactError: a name or an entry is none.
    """
    files = Bounds(Bounds(values, str(path)).values.get("files"), f"{path}: files").values
    check_names(files, f"{path}: files")
    for name, entry in files.items():
        one = Bounds(entry, f"{path}: files: {name}")
        one.keys(("sha256", "size"), ("sha256", "size"))
        one.whole("size", 0, 2**44)
        one.text("sha256", 64)
    return files


@dataclass(frozen=True)
class MixParent:
    """One of the models that a mix was made of.

    Attributes:
        name: of the model.
        share: of its weights in the mix; those of all parents add up to 1.
        weights_digest: sha256 (hex) of its weights.
        recipe_digest: of the recipe that made them; empty where none is recorded.
        hub: its repository on the Hub, ``org/repo@revision``; None where it was a folder.
        licence: by the Hub's short name; "" of one that started from random weights.
    """

    name: str
    share: float
    weights_digest: str
    recipe_digest: str = ""
    hub: str | None = None
    licence: str = "unknown"


@dataclass(frozen=True)
class MixRecord:
    """``mix.json``: what a mix was made of, and why in these shares.

    Attributes:
        name: of the mix.
        weights_digest: sha256 (hex) of its weights.
        parents: the start first, where ``alpha`` is not None.
        alpha: share of what was trained, the rest is the start's; None: a mean without a start.
        evaluation: figures by the names of the evaluations; empty where none ran.
        grid: the figures of every share that was looked at, the start's own at 0.
        rule: what the share was chosen by, in words; empty where there was no choice.
        files: name -> sha256 and size, of every file beside it; empty of a mix from before they
            were recorded.
    """

    name: str
    weights_digest: str
    parents: list[MixParent]
    alpha: float | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)
    grid: list[dict[str, Any]] = field(default_factory=list)
    rule: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: int = MIX_FORMAT


def read_mix(folder: Path) -> MixRecord:
    """Read ``mix.json``.

    Raises:
        ArtifactError: it is absent, of a newer format, or has other keys.
    """
    path = folder / MIX
    values = parse_json(read_bytes(path, error=ArtifactError), path, error=ArtifactError)
    if not isinstance(values, dict) or values.get("format") != MIX_FORMAT:
        found = values.get("format") if isinstance(values, dict) else values
        raise ArtifactError(f"{path}: format {shown(found)}; this ptft reads {MIX_FORMAT}")
    check_mix_values(values, str(path))
    try:
        parents = [MixParent(**parent) for parent in values["parents"]]
        return MixRecord(**{**values, "parents": parents})
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: {error}") from None
