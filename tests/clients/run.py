"""Lets clients embed what a job names: ``python run.py JOB.json``, in an environment of theirs.

A job is ``{"inputs", "out", "tasks": [{"client", "label", "model", "repo", "folder", ...}]}``. The
folder of inputs holds ``pictures/*.png`` and ``captions.json``, and for each model
``<model>.pixel_values.npy``, ``<model>.input_ids.npy`` and, where padding is masked,
``<model>.attention_mask.npy``. What a client makes of them is written into ``out`` as
``<label>.<model>.<which>.npy``: ``same_image`` and ``same_text`` of the tensors, ``image`` and
``text`` of the pictures and captions. A client that fails leaves ``<label>.<model>.error`` instead.

Nothing here imports ptft, which the environments do not hold.
"""

import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Embeddings = dict[str, np.ndarray]
CLIENTS = ("open_clip", "transformers", "timm", "sentence_transformers", "optimum", "onnxruntime")
_PTFT = Path(__file__).resolve().parents[2] / "ptft"


@dataclass(frozen=True)
class Task:
    """What one client does with one model."""

    repo: str  # tester/name on the Hub that HF_ENDPOINT names
    folder: Path  # the same, pulled
    options: dict[str, Any]
    pictures: list[Image.Image]
    captions: list[str]
    pixel_values: np.ndarray  # float32 (N, 3, H, W)
    tokens: dict[str, np.ndarray]  # input_ids, and attention_mask where it matters: int64 (T, L)


def read_task(inputs: Path, values: dict[str, Any]) -> Task:
    paths = sorted((inputs / "pictures").glob("*.png"))
    named = {n: inputs / f"{values['model']}.{n}.npy" for n in ("input_ids", "attention_mask")}
    return Task(
        repo=values["repo"],
        folder=Path(values["folder"]),
        options=values.get("options", {}),
        pictures=[Image.open(path).convert("RGB") for path in paths],
        captions=json.loads((inputs / "captions.json").read_text(encoding="utf-8")),
        pixel_values=np.load(inputs / f"{values['model']}.pixel_values.npy"),
        tokens={name: np.load(path) for name, path in named.items() if path.is_file()},
    )


def main(job: Path) -> None:
    values = json.loads(job.read_text(encoding="utf-8"))
    start = Path.cwd()
    for item in values["tasks"]:
        stem = f"{item['label']}.{item['model']}"
        try:
            assert item["client"] in CLIENTS
            embed: Callable[[Task], Embeddings]
            embed = importlib.import_module(f"with_{item['client']}").embed
            os.chdir(item.get("cwd", start))
            for which, rows in embed(read_task(Path(values["inputs"]), item)).items():
                np.save(Path(values["out"]) / f"{stem}.{which}.npy", np.asarray(rows, np.float32))
        except Exception:
            (Path(values["out"]) / f"{stem}.error").write_text(traceback.format_exc())
        finally:
            os.chdir(start)


def prepare_torchvision() -> None:
    """ptft's own mending of torchvision's import, from its file alone."""
    spec = importlib.util.spec_from_file_location("compat", _PTFT / "compat.py")
    assert spec is not None
    assert spec.loader is not None
    compat = importlib.util.module_from_spec(spec)
    sys.modules["compat"] = compat
    spec.loader.exec_module(compat)
    compat.prepare_torchvision()


if __name__ == "__main__":
    prepare_torchvision()
    import torch

    torch.set_num_threads(1)
    with torch.no_grad():
        main(Path(sys.argv[1]))
