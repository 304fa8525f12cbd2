"""A run on the second device beside the same run on the CPU: weights, waits, copies."""

from pathlib import Path
from typing import Any
from unittest import mock

import torch

from ptft import objective
from ptft.artifact import RunFiles
from ptft.export import export_model
from ptft.export.parity import make_golden
from ptft.model import load_model
from ptft.train import loop
from tests.support.rehearsal_ranks import rehearse_ranks
from tests.support.rehearsed import LOG_EVERY, Marked, Rehearsed
from tests.support.runs import largest_difference, run
from tests.support.second_device import second_device

__all__ = ["CASES", "rehearse", "rehearse_export"]

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
    "FSDP2": {"run__parallel": "fsdp"},
    "FSDP2, GradCache": {"run__parallel": "fsdp", "optim__micro_batch": 4, "optim__ema": 0.9},
    "FSDP2, LoRA": {**_adapt("lora", rank=2, dropout=0.0), "run__parallel": "fsdp"},
}
"""Changes to the recipe of :mod:`tests.support.runs`; BASE is a model that such a run left."""


def rehearse(folder: Path, base: Path, case: str) -> Rehearsed:
    """Run a case on the CPU and on the second device.

    Args:
        base: a run folder for those that start from a model.
    """
    changes = {"run__checkpoint_every": 100, "run__log_every": LOG_EVERY, "run__compile": "off"}
    changes |= _from(CASES[case], str(base))
    if "run__parallel" in changes:
        return rehearse_ranks(folder, changes)
    tiled = changes.pop("tiled_from", objective.TILED_FROM)
    with mock.patch.object(objective, "TILED_FROM", tiled):
        run(folder / "cpu", **changes)
        with second_device() as seen:
            marked = Marked(seen)
            with mock.patch.object(loop, "batches", marked.batches):
                run(folder / "device", run__device="cuda", **changes)
    difference = largest_difference(folder / "cpu", folder / "device")
    return Rehearsed(difference, [marked.waits()], seen.pageable, seen.calls)


def rehearse_export(folder: Path) -> float:
    """What a run of a device leaves, as the one of the CPU beside it: the weights of a model
    folder, and the golden embeddings that a model on a device and one on the CPU give.

    Returns:
        The largest difference.
    """
    found = []
    for name in ("cpu", "device"):
        out = folder / f"{name}-exported"
        export_model(
            folder / name, out, clients=["open_clip"], overwrite=True, measure=False, licence="mit"
        )
        found.append(load_model(out).state_dict())
    golden = make_golden(load_model(folder / "cpu" / RunFiles.FINAL))
    model = load_model(folder / "device" / RunFiles.FINAL)
    with second_device():
        there = make_golden(model.to("cuda"))
    pairs = [(found[0][name], other) for name, other in found[1].items()]
    pairs += [
        (torch.from_numpy(golden.image_embeds), torch.from_numpy(there.image_embeds)),
        (torch.from_numpy(golden.text_embeds), torch.from_numpy(there.text_embeds)),
    ]
    return max((one.double() - other.double()).abs().max().item() for one, other in pairs)


def _from(changes: Any, base: str) -> Any:
    if isinstance(changes, dict):
        return {key: _from(value, base) for key, value in changes.items()}
    return base if changes == "BASE" else changes
