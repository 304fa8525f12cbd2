"""Digests of what short runs end with: equal before and after a change that is to change no number.

Nine recipes of seconds and one export, each by the command line in a process of its own: the
digests of the final weights, of the metrics and of the model folder. They are a machine's own, and
its libraries': hold a commit's against another's on one machine.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.bench._parts import ptft

BARS: dict[str, tuple[str, float]] = {}  # two commits are held against each other, by their tables
_TOWERS = {
    "image": "test_vit",
    "image_size": 32,
    "text": {"width": 64, "layers": 2, "heads": 2, "context_length": 32},
    "embed_dim": 32,
}
_SHADED = {"kind": "scenes", "size": 32, "train": 256, "val": 32, "test": 32, "style": "shaded"}
_LINE = {**_SHADED, "style": "line"}
_OPTIM = {"lr": 1e-3, "global_batch": 32, "samples_seen": 2048, "precision": "fp32"}
_RUN = {"threads": 1, "workers": 0, "log_every": 4, "checkpoint_every": 8}
_RETRIEVAL = [{"kind": "retrieval", "split": "test"}]
_BEGIN = {"init": {"from": "clip"}, "data": _LINE}
_RECIPES: dict[str, dict[str, Any]] = {
    "clip": {"model": _TOWERS, "data": _SHADED},
    "siglip": {"model": _TOWERS, "data": _SHADED, "objective": {"kind": "siglip"}},
    "gradcache": {"model": _TOWERS, "data": _SHADED, "optim": {**_OPTIM, "micro_batch": 8}},
    "locked": {
        **_BEGIN,
        "adapt": {"kind": "full", "lock": ["image"]},
        "augment": {"crop_scale": [1, 1]},
        "run": {**_RUN, "features": "on"},
    },
    "lora": {**_BEGIN, "adapt": {"kind": "lora"}},
    "classify": {
        **_BEGIN,
        "objective": {"kind": "classify"},
        "early_stop": {"every": 2, "patience": 2},
        "evaluate": [{"kind": "classify", "split": "val"}],
    },
    "stages": {
        "init": {"from": "clip"},
        "stages": [{"name": "line", "data": _LINE}, {"name": "again", "data": _SHADED}],
        "guard": {"replay": 0.5},
    },
    "distilled": {"model": _TOWERS, "data": _LINE, "distill": {"from": "clip"}},
    "ranks": {"model": _TOWERS, "data": _SHADED, "run": {**_RUN, "parallel": "fsdp"}},
}
_TIMED = ("curves.png", "ptft.json")
_RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--module")


def run(*, smoke: bool = False) -> dict[str, str]:
    """Figures by name: the first 16 digits of each digest."""
    figures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        for name in ("clip",) if smoke else _RECIPES:
            folder = _train(Path(place), name, smoke)
            final = _sha256((folder / "final" / "model.safetensors").read_bytes())
            figures[f"{name}_weights"] = final
            figures[f"{name}_metrics"] = _sha256((folder / "metrics.json").read_bytes())
            print(f"{name:<10} {final}  {figures[f'{name}_metrics']}", flush=True)
        small = ("--precision", "") if smoke else ()  # fp32 alone
        _ptft(Path(place), "export", "clip", "model", *small, smoke=smoke)
        figures["export"] = _folder(Path(place) / "model")
        print(f"{'export':<10} {figures['export']}", flush=True)
    return figures


def _train(place: Path, name: str, smoke: bool) -> Path:
    values = {"name": name, "optim": _OPTIM, "evaluate": _RETRIEVAL, **_RECIPES[name]}
    values["run"] = {**values.get("run", _RUN), "dir": name, "trackers": []}
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    before = _RANKS if name == "ranks" else ("-m",)
    _ptft(place, "train", path.name, before=before, smoke=smoke)
    return place / name


def _ptft(place: Path, *words: str, before: tuple[str, ...] = ("-m",), smoke: bool = False) -> None:
    """In a process of its own; in a smoke run in this one."""
    if smoke:
        with contextlib.chdir(place):
            ptft(*words, smoke=True)
        return
    root = str(Path(__file__).parents[2])
    surroundings = {**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        [sys.executable, *before, "ptft", *words],
        cwd=place,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"ptft {' '.join(words)}: {ran.returncode}\n{ran.stderr[-4000:]}")


def _folder(folder: Path) -> str:
    """Of the files of a model folder, but for those in which a clock shows: the curves, of
    which one is the throughput, and the record of all files' digests."""
    digests = {
        str(path.relative_to(folder)): _sha256(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in _TIMED
    }
    return _sha256(json.dumps(digests).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
