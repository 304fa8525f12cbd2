"""The figures of a run over samples seen, from its log alone, and which belong together."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from ptft.artifact import RunFiles

__all__ = ["Panel", "Series", "group_panels", "is_share", "looked_at", "read_series"]

Series = dict[str, list[tuple[int, float]]]
"""Name of a figure -> samples seen and value, in the order of the log."""

_LABELS = {
    "loss": "loss",
    "accuracy": "accuracy in training",
    "lr": "learning rate",
    "logit_scale": "logit scale",
    "logit_bias": "logit bias",
    "grad_norm": "gradient norm",
    "samples_per_second": "samples/s",
}
_SHARES = ("recall@", "top1", "top5", "mean_per_class", "ece")  # of an evaluation, to be drawn
_BOUNDS = ("chance",)  # shares too, but the same all along
_PRECISIONS = ("map", "ap50", "ap75", "micro_f1", "macro_f1")  # by their whole names
_BOXES = (
    *("micro_f1_even", "macro_f1_even", "all_first"),
    *("map_small", "map_medium", "map_large", "ar1", "ar10", "ar100"),
)  # shares, not drawn
_LOOKED_AT = ("recall@", "top1", "ece")  # of an evaluation, what people look at first


@dataclass(frozen=True)
class Panel:
    """Series that are drawn into one pair of axes.

    Attributes:
        title: what is measured, or the name of an evaluation.
        names: of the series.
        shares: whether they are shares of 1.
        evaluation: whether an evaluation measured them.
    """

    title: str
    names: list[str]
    shares: bool
    evaluation: bool


def read_series(folder: Path) -> Series:
    """Read every number of ``metrics.jsonl``; empty where nothing was logged yet.

    Lines that a kill cut and values that are not finite are left out.
    """
    series: Series = {}
    log = folder / RunFiles.LOG
    if not log.is_file():
        return series
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                values = json.loads(line)
                seen = int(values.pop("seen"))
            except (ValueError, KeyError):
                continue
            for name, value in values.items():
                number = isinstance(value, int | float) and not isinstance(value, bool)
                if name != "step" and number and math.isfinite(value):
                    series.setdefault(name, []).append((seen, value))
    return series


def is_share(name: str) -> bool:
    """Whether a figure of this name is a share of 1."""
    last = name.rpartition("/")[2]
    whole = ("accuracy", *_PRECISIONS, *_BOXES)
    return last in whole or any(part in last for part in (*_SHARES, *_BOUNDS))


def looked_at(name: str) -> bool:
    """Whether a figure of an evaluation is one that people look at first."""
    return name in _PRECISIONS or any(part in name for part in _LOOKED_AT)


def group_panels(series: Series) -> list[Panel]:
    """Make a panel of each scalar of training, best known first, and one of each evaluation's
    shares."""
    scalars = [name for name in series if "/" not in name]
    known = list(_LABELS)
    scalars.sort(key=lambda name: known.index(name) if name in known else len(known))
    panels = [Panel(_LABELS.get(name, name), [name], is_share(name), False) for name in scalars]
    evaluations: dict[str, list[str]] = {}
    for name in series:
        group, slash, last = name.rpartition("/")
        if slash and (last in _PRECISIONS or any(part in last for part in _SHARES)):
            evaluations.setdefault(group, []).append(name)
    return [*panels, *(Panel(title, names, True, True) for title, names in evaluations.items())]
