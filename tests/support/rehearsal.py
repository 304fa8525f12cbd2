"""A run on the second device beside the same run on the CPU: weights, waits, copies."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ptft import objective
from ptft.data import Batch
from ptft.train import loop
from tests.support.runs import largest_difference, run
from tests.support.second_device import Seen, second_device

__all__ = ["CASES", "LOG_EVERY", "Rehearsed", "rehearse"]

LOG_EVERY = 3
_MATCHING = " match_boxes"  # where a wait ends that SciPy's assignment asks for
_BEGIN: dict[str, Any] = {"model": None, "init": {"from": "BASE"}}
_CLASSIFY = {**_BEGIN, "objective": {"kind": "classify"}}


def _adapt(kind: str, **values: Any) -> dict[str, Any]:
    return {**_BEGIN, "adapt": {"kind": kind, **values}}


CASES: dict[str, dict[str, Any]] = {
    "InfoNCE": {},
    "sigmoid": {"objective": {"kind": "siglip"}},
    "GradCache": {"optim__micro_batch": 4},
    "tiles": {"tiled_from": 4},
    "tiles, sigmoid": {"tiled_from": 4, "objective": {"kind": "siglip"}},
    "several widths": {"objective": {"kind": "clip", "matryoshka": [4, 8]}},
    "dropped patches": {"augment": {"patch_dropout": 0.25}, "optim__micro_batch": 8},
    "bf16": {"optim__precision": "bf16"},
    "fp16": {"optim__precision": "fp16"},
    "average": {"optim__ema": 0.9},
    "Muon": {"optim__optimizer": "muon"},
    "rates by layer": {"optim__layer_decay": 0.8},
    "pull to the start": {**_BEGIN, "regularise": {"start": 0.01}},
    "locked, features kept": {
        **_BEGIN,
        "adapt": {"kind": "full", "lock": ["image"]},
        "augment": {"crop_scale": [1, 1]},
        "run__features": "on",
    },
    "LoRA": _adapt("lora", rank=2, dropout=0.0),
    "DoRA": _adapt("dora", rank=2, dropout=0.0),
    "IA3": _adapt("ia3"),
    "bottleneck": _adapt("bottleneck", width=4),
    "prefix": _adapt("prefix", length=2, depth="deep"),
    "projection": _adapt("projection"),
    "classifier": _CLASSIFY,
    "classifier, weighed": {
        **_BEGIN,
        "objective": {"kind": "classify", "class_weights": "balanced", "focal": 2.0},
        "optim__micro_batch": 4,
    },
    "classifier of texts": {**_BEGIN, "objective": {"kind": "classify", "reads": "text"}},
    "captions of classes": {"objective": {"kind": "clip", "templates": ["a {} shape"]}},
    "teacher": {"distill": {"from": "BASE", "features": 1.0}},
    "ResNet": {"model": {"name": "tiny-resnet"}},
    "detector": {
        "model__image_size": 160,
        "data__size": 64,
        "objective": {"kind": "detect", "templates": ["a {}"]},
        "optim__samples_seen": 32,
        "optim__global_batch": 4,
    },
    "teacher of a classifier": {**_CLASSIFY, "distill": {"from": "BASE"}},
}
"""Changes to the recipe of :mod:`tests.support.runs`; BASE is a model that such a run left."""


@dataclass(frozen=True)
class Rehearsed:
    """What a run on the second device showed.

    Attributes:
        difference: of its weights from those of the run on the CPU, at most.
        waits: of each step but the last, which saves: what the host waited for.
        pageable: copies that were to go on and could not, of the whole run.
        calls: operations on the device.
    """

    difference: float
    waits: list[list[str]]
    pageable: list[str]
    calls: int

    @property
    def unasked(self) -> list[str]:
        """Waits of steps that are not logged, and those beyond the first of one that is; but for a
        detector's, which gives boxes to places on the host."""
        steps = [[one for one in waits if not one.endswith(_MATCHING)] for waits in self.waits]
        return [one for n, waits in enumerate(steps, 1) for one in waits[n % LOG_EVERY == 0 :]]


def rehearse(folder: Path, base: Path, case: str) -> Rehearsed:
    """Run a case on the CPU and on the second device.

    Args:
        base: a run folder for those that start from a model.
    """
    changes = {"run__checkpoint_every": 100, "run__log_every": LOG_EVERY, "run__compile": "off"}
    changes |= _from(CASES[case], str(base))
    tiled = changes.pop("tiled_from", objective.TILED_FROM)
    with mock.patch.object(objective, "TILED_FROM", tiled):
        run(folder / "cpu", **changes)
        with second_device() as seen:
            marks = _Marked(seen)
            with mock.patch.object(loop, "batches", marks.batches):
                run(folder / "device", run__device="cuda", **changes)
    waits = [seen.waits[a:b] for a, b in zip(marks.places, marks.places[1:], strict=False)]
    difference = largest_difference(folder / "cpu", folder / "device")
    return Rehearsed(difference, waits, seen.pageable, seen.calls)


class _Marked:
    """The batches of a run, and how many waits there were before each."""

    def __init__(self, seen: Seen) -> None:
        self.seen, self.plain, self.places = seen, loop.batches, list[int]()

    def batches(self, *arguments: Any, **options: Any) -> Iterator[Batch]:
        for batch in self.plain(*arguments, **options):
            self.places.append(len(self.seen.waits))
            yield batch


def _from(changes: Any, base: str) -> Any:
    if isinstance(changes, dict):
        return {key: _from(value, base) for key, value in changes.items()}
    return base if changes == "BASE" else changes
