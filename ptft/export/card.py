"""The model card: what the folder holds, what it measured, and the commands of each client.

What people add stays: text between ``<!-- keep NAME -->`` and ``<!-- /keep NAME -->``, and keys of
the front matter that the export does not write, are carried over when a model is exported again.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptft.artifact import FolderFiles, ModelInfo
from ptft.errors import ArtifactError
from ptft.export.card_front import data_words, front_matter
from ptft.export.card_usage import usage
from ptft.export.router_layout import ROUTER
from ptft.model.spec import ModelSpec
from ptft.model_record import MixRecord
from ptft.pages.markdown import card_metadata, code, inline, row
from ptft.printable import printable
from ptft.recipe import ClassifyObjective, DetectObjective, Recipe
from ptft.recipe.publication import public_place

__all__ = ["Kept", "make_card", "read_kept"]

_KEEP = re.compile(r"<!-- keep (?P<name>[\w-]+) -->\n(?P<text>.*?)<!-- /keep (?P=name) -->", re.S)
_NOTES = "notes"  # the block that every card has
_TEXTS = {
    ("classify", "refused"): "Its texts say nothing of a picture: ask its classifier, not its text "
    "tower",
    ("classify", "warned"): "Ask its classifier, and trust no other text",
    ("embed", "refused"): "Its texts say nothing of a picture",
    ("embed", "warned"): "Its texts may say little of a picture",
}
_EMPTY = (
    "What people should know of this model. This block stays when the model is exported again.\n"
)


@dataclass(frozen=True)
class Kept:
    """What is carried over from a card that was there.

    Attributes:
        blocks: name -> text between its marks.
        front: the front matter's keys and values.
    """

    blocks: dict[str, str] = field(default_factory=dict)
    front: dict[str, Any] = field(default_factory=dict)


def read_kept(path: Path) -> Kept:
    """The kept parts of a card; empty where there is none, or no front matter."""
    if not path.is_file():
        return Kept()
    text = printable(path.read_text(encoding="utf-8"), lines=True)
    try:
        front = card_metadata(text)
    except ArtifactError:
        front = {}  # spoilt by hand: the export writes a sound one
    blocks = {match["name"]: match["text"] for match in _KEEP.finditer(text)}
    return Kept(blocks, front)


def make_card(
    info: ModelInfo,
    spec: ModelSpec,
    recipe: Recipe | None,
    metrics: dict[str, Any],
    files: list[str],
    *,
    licence: str | None,
    kept: Kept,
    mix: MixRecord | None = None,
) -> str:
    """The whole card as Markdown.

    Args:
        metrics: what ``metrics.json`` holds: ``evaluation`` and ``parity``.
        files: names of all files in the folder.
        licence: by the Hub's short name; None leaves the one of ``kept``, or none.
        mix: what the model was mixed of, if it was.
    """
    parts = [
        front_matter(info, spec, recipe, metrics["evaluation"], licence, kept.front, mix),
        f"# {inline(info.name)}\n",
        _summary(info, spec),
        _block(_NOTES, kept.blocks.get(_NOTES, _EMPTY)),
        *(["## Trained on\n", _trained_on(spec, recipe)] if mix is None else _mixed_from(mix)),
        "## Measured\n",
        _measured(metrics["evaluation"]),
        *_pictures(files),
        "## Use\n",
        usage(info, spec, files),
        "## Files\n",
        _exported(info, spec, metrics),
    ]
    parts += [_block(name, text) for name, text in kept.blocks.items() if name != _NOTES]
    return "\n".join(parts)


def _summary(info: ModelInfo, spec: ModelSpec) -> str:
    height, width = info.image_size
    pictures = (info.task, info.texts) == ("embed", "refused")
    what = "images into a space" if pictures else "images and texts into one space"
    lines = [
        f"Embeds {what} of {info.embed_dim} dimensions. Architecture: "
        f"{inline(spec.name)}; images of {width}x{height} pixels, texts of up to "
        f"{info.context_length} tokens."
    ]
    if info.matryoshka:
        widths = ", ".join(map(str, info.matryoshka))
        lines.append(f"An embedding may be cut to its first {widths} dimensions, then normalised.")
    if info.task == "classify":
        names = ", ".join(map(inline, info.classes[:10])) + (
            ", ..." if len(info.classes) > 10 else ""
        )
        reads = {"image": "images", "text": "texts", "both": "images with their texts"}[info.reads]
        lines.append(f"It has a classifier of {reads}, {len(info.classes)} classes: {names}.")
        if info.thresholds:
            lines.append(
                "Its classes do not exclude each other: each has a sigmoid of its own, and is told "
                f"from its threshold on, which validation chose for the best F1 (`thresholds` in "
                f"`{FolderFiles.INFO}`, {min(info.thresholds):.3g} to {max(info.thresholds):.3g})."
            )
    if info.texts != "yes":
        lines.append(f"**{_TEXTS[info.task, info.texts]}**: {inline(info.texts_reason)}.")
    if info.task == "detect":
        names = ", ".join(map(inline, info.classes[:10])) + (
            ", ..." if len(info.classes) > 10 else ""
        )
        lines.append(
            "It finds things in a picture by texts: of each of its places it tells a box and an "
            "embedding that is compared with theirs (OWL-ViT, Minderer et al. 2022). Its boxes of "
            f"training were of {len(info.classes)} classes: {names}."
        )
    if spec.open_clip_reason is not None:
        lines.append(
            f"open_clip cannot load it: {inline(spec.open_clip_reason)}. "
            "The ONNX files and ptft can."
        )
    elif spec.open_clip_needs is not None:
        lines.append(f"open_clip needs {spec.open_clip_needs} to load it.")
    lines += [
        f"{' and '.join(names)} cannot load it exactly: {inline(reason)}."
        for reason, names in _reasons(info).items()
    ]
    return "\n\n".join(lines) + "\n"


def _reasons(info: ModelInfo) -> dict[str, list[str]]:
    """Why a library cannot load the folder -> the libraries."""
    found: dict[str, list[str]] = {}
    for name in ("transformers", "sentence-transformers", "timm"):
        if (reason := info.clients.get(name, {}).get("reason")) is not None:
            found.setdefault(reason, []).append(name)
    return found


def _trained_on(spec: ModelSpec, recipe: Recipe | None) -> str:
    if recipe is None:
        return "No recipe is recorded.\n"
    start = public_place(spec.base or "random weights")
    optim = recipe.optim
    length = f"{optim.epochs:g} epochs" if optim.epochs else f"{optim.samples_seen:,} samples seen"
    learns: str = recipe.adapt.kind
    if locked := getattr(recipe.adapt, "lock", []):
        learns += f", locked: {', '.join(locked)}"
    rows = {
        "data": data_words(recipe.data),
        "objective": recipe.objective.kind,
        "started from": start,
        "learns": learns,
        "length": f"{length}, {optim.global_batch} a step, learning rate {optim.lr:g}",
        "seed": str(recipe.seed),
    }
    if isinstance(recipe.objective, ClassifyObjective):
        rows["reads"] = recipe.objective.reads
    if isinstance(recipe.objective, ClassifyObjective | DetectObjective):
        rows["prompts"] = "; ".join(recipe.objective.templates)
    table = "".join(f"{row((key, inline(value)))}\n" for key, value in rows.items())
    return f"| | |\n|---|---|\n{table}\n`{FolderFiles.RECIPE}` holds every setting.\n"


def _mixed_from(mix: MixRecord) -> list[str]:
    """The heading and its text."""
    lines = [
        "A weighted mean of the weights of other models, by `ptft mix`.\n",
        "| model | share | sha256 of its weights |",
        "|---|---|---|",
        *(
            row((inline(p.hub or public_place(p.name)), f"{p.share:.4g}", code(p.weights_digest)))
            for p in mix.parents
        ),
    ]
    if mix.rule:
        lines += ["", f"The share was chosen by {inline(mix.rule)}."]
    lines += ["", f"`{FolderFiles.MIX}` holds what every share measured that was looked at."]
    return ["## Mixed from\n", "\n".join(lines) + "\n"]


def _measured(evaluation: dict[str, Any]) -> str:
    if not evaluation:
        return "Nothing was measured: the recipe names no evaluation.\n"
    lines = ["Shares are of 1, ranks count from 1. By `ptft evaluate`.\n"]
    lines += ["| evaluation | figure | value |", "|---|---|---|"]
    for name, figures in evaluation.items():
        for key, value in figures.items():
            lines.append(row((inline(name), inline(key), _number(value))))
    return "\n".join(lines) + "\n"


def _pictures(files: list[str]) -> list[str]:
    shown = {
        FolderFiles.CURVES: ("Figures over samples seen", ""),
        FolderFiles.EXAMPLES: (
            "Queries and what the model finds nearest",
            "Each row is a query (a text or a picture, first) and what the model finds nearest to "
            "it; a green frame is a right one, where that can be told.\n",
        ),
    }
    lines = []
    for name, (title, words) in shown.items():
        if name in files:
            lines += [words] * bool(words) + [f"![{title}]({name})\n"]
    return lines


def _exported(info: ModelInfo, spec: ModelSpec, metrics: dict[str, Any]) -> str:
    lines = ["ONNX files were not asked for (`ptft export --for`), and are not here."]
    if metrics["pixels"] is None:
        return "\n".join([*lines, *_loaded(info, metrics)]) + "\n"
    lines = [
        "Each ONNX file was run in a process of its own by onnxruntime with default options, and "
        "held against the checkpoint in torch. Differences are of normalised embeddings"
        f"{', and of boxes, as shares of a picture' if info.task == 'detect' else ''}.\n",
        "| file | MB | largest difference | smallest cosine | points lost | inputs run |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in metrics["parity"].items():
        size = f"{figures['bytes'] / 1e6:.2f}"
        shapes = ", ".join(figures["shapes"])
        lost = "not measured" if figures["lost"] is None else f"{figures['lost']:.2f}"
        lines.append(
            f"| {inline(name)} | {size} | {figures['max_abs']:.2e} | {figures['min_cosine']:.8f} "
            f"| {lost} | {shapes} |"
        )
    lines += _loaded(info, metrics)
    if "owlvit_onnx" in metrics:
        lines += [
            "",
            f"`{FolderFiles.OWLVIT_ONNX}` gives the checkpoint's boxes and logits, the largest "
            f"difference being {metrics['owlvit_onnx']:.2e}.",
        ]
    lines += ["", _loss(metrics)]
    left_out = metrics["left_out"].items()
    lines += [f"\n{code(name)} is left out: {inline(reason)}." for name, reason in left_out]
    pixels = metrics["pixels"]
    lines.append(
        f"\n`{FolderFiles.PREPROCESS_ONNX}` makes `pixel_values` (1, 3, H, W) of the bytes of a "
        "picture, uint8 (height, width, 3) with red first, in any language that onnxruntime has: "
        f"of noise of four sizes it gave Python's pixels but for {pixels['share']:.4%}, which "
        f"differed by at most {round(pixels['largest'])} of 255."
    )
    length = (
        "any length up to the context length"
        if spec.text_trimmable
        else ("exactly the context length, since padding is part of what the tower reads")
    )
    lines += [
        "",
        f"All take any batch; the text tower takes {length}. "
        f"`{FolderFiles.GOLDEN}` holds inputs and the embeddings that the checkpoint gave them, "
        f"`{FolderFiles.INFO}` the digest of every file.",
    ]
    return "\n".join(lines) + "\n"


def _loaded(info: ModelInfo, metrics: dict[str, Any]) -> list[str]:
    """What libraries made of the folder."""
    lines: list[str] = []
    for name, difference in metrics["libraries"].items():
        how = f"{name} loaded the folder as its {info.clients[name]['loads']}"
        same = "embeddings"
        if info.clients[name]["loads"] == ROUTER:
            how = f"transformers loaded each tower of {name}' modules alone"
        elif info.task == "detect" and name == "transformers":
            same = "boxes and logits"
        lines += [
            "",
            f"{how} and gave the same {same}, the largest difference being {difference:.2e}.",
        ]
    return lines


def _loss(metrics: dict[str, Any]) -> str:
    """How the points lost were measured, or why they were not."""
    if metrics["not_measured"] is not None:
        reason = inline(metrics["not_measured"])
        return f"Recall and accuracy of the files were not measured: {reason}."
    return (
        "Points lost are of 100, of the evaluation that lost most: of its top-1 accuracy, its mAP, "
        f"or the mean of its recalls; `{FolderFiles.METRICS}` holds every figure. The text "
        "tower's were measured with the image tower in torch, the image tower's with the text "
        "tower of the same precision."
    )


def _number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _block(name: str, text: str) -> str:
    return f"<!-- keep {name} -->\n{text}<!-- /keep {name} -->\n"
