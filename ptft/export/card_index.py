"""The card's ``model-index``: measured figures in the form that the Hub shows beside a model.

https://github.com/huggingface/hub-docs/blob/main/modelcard.md?plain=1
"""

from typing import Any

from ptft.recipe import DataSection, EvaluateItem, Recipe, TableData
from ptft.recipe.evaluation import metrics_of
from ptft.recipe.paths import is_hub_id

__all__ = ["hub_data", "model_index"]

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


def hub_data(section: DataSection) -> list[str]:
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
    on_hub = hub_data(data)
    return {
        "task": {"type": _TASKS[item.kind], "name": item.label},
        "dataset": {
            "type": on_hub[0] if on_hub else data.kind,
            "name": said,
            "split": item.split,
        },
        "metrics": [
            {"type": _metric_type(key), "name": key, "value": figures[key]}
            for key in metrics_of(item)
            if key in figures
        ],
    }


def _metric_type(key: str) -> str:
    if key in ("map", "ap50", "ap75"):
        return "mean_average_precision"
    return "recall" if "recall@" in key else "accuracy"
