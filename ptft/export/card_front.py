"""The card's front matter: what the Hub files a model under."""

from typing import Any

from ptft.artifact import MixRecord, ModelInfo
from ptft.export.card_index import model_index
from ptft.export.data_names import public_names
from ptft.export.texts import offers_texts
from ptft.model.licence import hub_bases
from ptft.model.spec import ModelSpec
from ptft.pages.markdown import replace_metadata
from ptft.recipe import (
    TOWERS_OF,
    BoxesData,
    DataSection,
    FolderData,
    MixtureData,
    Recipe,
    ScenesData,
    ShardsData,
    TableData,
)
from ptft.recipe.paths import is_hub_id

__all__ = ["data_words", "front_matter"]


def front_matter(
    info: ModelInfo,
    spec: ModelSpec,
    recipe: Recipe | None,
    evaluation: dict[str, Any],
    licence: str | None,
    kept: dict[str, Any],
    mix: MixRecord | None,
) -> str:
    """The front matter, which the Hub reads.

    Args:
        kept: that of the card which was there; keys that are not written here stay.
    """
    classify, detect = info.task == "classify", info.task == "detect"
    loads = [name for name, client in info.clients.items() if "loads" in client]
    if "transformers" in loads and not detect:
        loads.append("transformers.js")
    kinds = [f"{tower}-classification" for tower in TOWERS_OF[info.reads] if classify]
    texts = offers_texts(info, spec)
    tags = ["ptft", "onnx", *["image-text"] * texts, *loads, *kinds]
    task = "object-detection" if detect else "image-classification"
    values: dict[str, Any] = {
        "library_name": "open_clip" if spec.open_clip_config is not None else "onnx",
        "pipeline_tag": f"zero-shot-{task}" if texts else task,
        "tags": [*tags, *(tag for tag in kept.get("tags") or [] if tag not in tags)],
    }
    parents = mix.parents if mix is not None else []
    merged = list(dict.fromkeys(p.hub.partition("@")[0] for p in parents if p.hub is not None))
    if merged:
        values["base_model_relation"] = "merge"  # the Hub's word for weights that were averaged
    if bases := merged or hub_bases(recipe):
        values["base_model"] = bases if len(bases) > 1 else bases[0]
    if recipe is not None and isinstance(recipe.data, TableData):
        hub = [name for name in public_names(recipe.data) if is_hub_id(name)]
        if hub:
            values["datasets"] = [name.partition("@")[0].partition(":")[0] for name in hub]
    if licence is not None:
        values["license"] = licence
    if recipe is not None and evaluation:
        said = {item.label: data_words(item.data or recipe.data) for item in recipe.evaluate}
        if index := model_index(info.name, recipe, evaluation, said):
            values["model-index"] = index
    stands = {key: value for key, value in kept.items() if key != "model-index"}
    values = {**stands, **values}
    return replace_metadata("", values)


def data_words(section: DataSection) -> str:
    """A data section in words, without where it lies."""
    match section:
        case MixtureData():
            shares = [f"{part.weight:g} x {data_words(part.data)}" for part in section.parts]
            return f"mixture: {'; '.join(shares)}"
        case ScenesData():
            return f"scenes that ptft draws from a seed, style {section.style}, {section.train:,}"
        case ShardsData() | FolderData() | TableData() | BoxesData():
            return f"{section.kind}: {', '.join(public_names(section))}"
