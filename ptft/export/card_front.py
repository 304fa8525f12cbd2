"""The card's front matter: what the Hub files a model under, and the measured figures beside it.

https://github.com/huggingface/hub-docs/blob/main/modelcard.md?plain=1
"""

from typing import Any

from ptft.artifact import ModelInfo
from ptft.export.quality import offers_texts
from ptft.model.licence import hub_bases
from ptft.model.spec import ModelSpec
from ptft.model_record import MixRecord
from ptft.pages.markdown import replace_metadata
from ptft.recipe import (
    TOWERS_OF,
    BoxesData,
    DataSection,
    EvaluateItem,
    FolderData,
    MixtureData,
    Recipe,
    ScenesData,
    ShardsData,
    TableData,
)
from ptft.recipe.evaluation import metrics_of
from ptft.recipe.paths import is_hub_id
from ptft.recipe.publication import public_names

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
    if not texts and not classify:
        task = "image-feature-extraction"
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


_TASKS = {
    "retrieval": "image-text-retrieval",
    "zero_shot": "zero-shot-image-classification",
    "probe": "image-classification",
    "classify": "image-classification",
    "detect": "object-detection",
}


def model_index(
    name: str, recipe: Recipe, evaluation: dict[str, Any], said: dict[str, str]
) -> list[dict[str, Any]]:
    """One entry with a result for each evaluation of the recipe that ran; empty without any.

    Args:
        evaluation: figures by the labels of the recipe's evaluations, as ``metrics.json`` has them.
        said: label -> its data in words, without where it lies.
    """
    results = [
        _result(item, item.data or recipe.data, evaluation[item.label], said[item.label])
        for item in recipe.evaluate
        if item.label in evaluation
    ]
    results = [result for result in results if result["metrics"]]
    return [{"name": name, "results": results}] if results else []


def _hub_data(section: DataSection) -> list[str]:
    """Data sets on the Hub that a section reads, without revision and split."""
    if not isinstance(section, TableData):
        return []
    paths = [section.train, section.val, section.test]
    names = [n for path in paths for n in ([path] if isinstance(path, str) else path or [])]
    found = [name.partition("@")[0].partition(":")[0] for name in names if is_hub_id(name)]
    return list(dict.fromkeys(found))


def _result(
    item: EvaluateItem, data: DataSection, figures: dict[str, Any], said: str
) -> dict[str, Any]:
    on_hub = _hub_data(data)
    return {
        "task": {"type": _TASKS[item.kind], "name": item.label},
        "dataset": {
            "type": on_hub[0] if on_hub else data.kind,
            "name": said,
            "split": item.split,
        },
        "metrics": [
            {"type": _metric_type(key), "name": key, "value": figures[key]}
            for key in metrics_of(item, data)
            if key in figures
        ],
    }


def _metric_type(key: str) -> str:
    if key in ("map", "ap50", "ap75"):
        return "mean_average_precision"
    if key.endswith("_f1"):
        return "f1"
    return "recall" if "recall@" in key else "accuracy"
