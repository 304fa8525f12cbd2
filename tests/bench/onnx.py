"""ONNX towers against torch eager: speed on one thread, size, and what 8 bits cost on real data.

Speed and sizes: ViT-S-32 with random weights, each batch by every way in turn, in CPU time.
Accuracy: emoji (a ResNet and a transformer for text), trained here on a quarter of the recipe's
samples, and groceries (the recipe's head on a MobileNetV2); each exported as a user exports it, so
that a file that costs more than a point is left out, which is said. Runs stay in a cache folder.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from platformdirs import user_cache_path

from ptft.artifact import FolderFiles, RunFiles, read_json
from ptft.export.graph import write_graph
from ptft.export.quantise import write_int8
from ptft.export.towers import image_tower, text_tower
from ptft.model import build_model
from ptft.onnx_model import tower_file
from ptft.recipe import ArchModel, ClipObjective

NAME, TURNS = "ViT-S-32", 40
TRAINED = {
    "emoji": ("pretrain/emoji", "optim.samples_seen=12800"),
    "grocery": ("finetune/grocery-probe", "evaluate=[{kind: classify, name: head, split: test}]"),
}
BARS = {
    "fp32, times as fast as torch": (">=", 1.05),
    "int8, times as fast as torch": (">=", 2.2),
    "text of 77 tokens, times that of 12": (">=", 5.0),
    "int8, share of fp32's bytes": ("<=", 0.30),
    "emoji, points lost": ("<=", 1.0),
    "grocery, points lost": ("<=", 1.0),
}


def run() -> dict[str, float]:
    """Measure, print the tables, return the figures."""
    torch.set_num_threads(1)
    return {**_speed(), **_accuracy()}


def _speed() -> dict[str, float]:
    model = build_model(ArchModel(name=NAME), None, ClipObjective(), seed=0).eval()
    images = torch.randn(1, 3, *model.spec.preprocess.size)
    # One text alone takes as long as reading the weights does, whatever its length.
    texts = torch.randint(1, 40000, (16, 77))
    with tempfile.TemporaryDirectory() as home:
        vision, text = (
            Path(home, Path(name).name) for name in (FolderFiles.VISION_ONNX, FolderFiles.TEXT_ONNX)
        )
        small = {path: Path(tower_file(str(path), "int8")) for path in (vision, text)}
        write_graph(image_tower(model), vision)
        write_graph(text_tower(model), text)
        for plain, path in small.items():
            write_int8(path, plain, images.numpy())
        share = max(path.stat().st_size / plain.stat().st_size for plain, path in small.items())
        with torch.no_grad():
            ways: dict[str, Callable[[], object]] = {
                "image, torch": lambda: model.encode_image(images),
                "image, fp32": _session(vision, images),
                "image, int8": _session(small[vision], images),
                "16 texts of 77": _session(text, texts),
                "16 texts of 12": _session(text, texts[:, :12]),
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(TURNS + 5):
                for name, way in ways.items():
                    started = time.process_time()
                    way()
                    if turn >= 5:
                        seconds[name].append(time.process_time() - started)
    median = {name: float(np.median(values)) * 1e3 for name, values in seconds.items()}
    for name, value in median.items():
        print(f"{name:18} {value:8.2f} CPU-ms")
    return {
        "fp32, times as fast as torch": median["image, torch"] / median["image, fp32"],
        "int8, times as fast as torch": median["image, torch"] / median["image, int8"],
        "text of 77 tokens, times that of 12": median["16 texts of 77"] / median["16 texts of 12"],
        "int8, share of fp32's bytes": share,
    }


def _session(path: Path, batch: torch.Tensor) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    feed = {session.get_inputs()[0].name: batch.contiguous().numpy()}
    return lambda: session.run(None, feed)


def _accuracy() -> dict[str, float]:
    figures = {}
    print(f"{'exported':8} {'file':32} {'MB':>7} {'points lost':>11}")
    for name, (recipe, change) in TRAINED.items():
        place = user_cache_path("ptft") / "bench" / f"onnx-{name}"
        if not (place / RunFiles.FINAL).is_dir():
            _ptft("train", recipe, change, f"run.dir={place}")
        with tempfile.TemporaryDirectory() as home:
            _ptft("export", place, Path(home, "model"))
            metrics = read_json(Path(home, "model") / FolderFiles.METRICS)
        for file, parity in metrics["parity"].items():
            lost = "none" if parity["lost"] is None else f"{parity['lost']:.2f}"
            print(f"{name:8} {file:32} {parity['bytes'] / 1e6:7.2f} {lost:>11}")
        for file, reason in metrics["left_out"].items():
            print(f"{name:8} {file:32} left out: {reason}")
        vision = tower_file(FolderFiles.VISION_ONNX, "int8")
        if vision in metrics["parity"]:  # measured with the text tower of 8 bits
            figures[f"{name}, points lost"] = metrics["parity"][vision]["lost"]
    return figures


def _ptft(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "ptft", *map(str, arguments)], check=True)
