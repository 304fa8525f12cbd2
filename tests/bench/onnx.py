"""ONNX towers against torch eager: speed on one thread, size, and what 8 bits cost on real data.

Speed and sizes: ViT-S-32 with random weights, each batch by every way in turn, in CPU time.
Accuracy: emoji (a ResNet and a transformer for text), trained here on a quarter of the recipe's
samples, and groceries (the recipe's head on a MobileNetV2); each exported as a user exports it, so
that a file that costs more than a point is left out, which is said. Runs stay in a cache folder.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from platformdirs import user_cache_path

from ptft.artifact import FolderFiles, RunFiles, read_json, tower_file
from ptft.export.graph import write_graph
from ptft.export.towers import image_tower, text_tower
from ptft.model import DualEncoder, build_model, load_model
from ptft.onnx.quantise import learns_ranges, write_int8
from ptft.recipe import ArchModel, ClipObjective
from tests.bench._parts import ptft, shared_data
from tests.support.tiny import arch_section

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
    "transformer, the other way of 8 bits, times as slow": (">=", 1.0),
    "ResNet, the other way of 8 bits, times as slow": (">=", 1.0),
}


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the tables, return the figures."""
    torch.set_num_threads(1)
    shared_data("emoji", "grocery", "mobilenetv2")
    section, turns = (arch_section(), 3) if smoke else (ArchModel(name=NAME), TURNS)
    vit = build_model(section, None, ClipObjective(), seed=0).eval()
    figures = _speed(vit, turns)
    with tempfile.TemporaryDirectory() as made:
        places = Path(made) if smoke else user_cache_path("ptft") / "bench"
        figures |= _accuracy(places, smoke=smoke)
        emoji = load_model(places / "onnx-emoji").eval()
    return {**figures, **_ways({"transformer": vit, "ResNet": emoji}, turns)}


def _speed(model: DualEncoder, turns: int) -> dict[str, float]:
    images = torch.randn(1, 3, *model.spec.preprocess.size)
    # One text alone takes as long as reading the weights does, whatever its length.
    texts = torch.randint(1, 40000, (16, model.spec.tokenizer.context_length))
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
            median = _in_turn(ways, turns)
    for name, value in median.items():
        print(f"{name:18} {value:8.2f} CPU-ms")
    return {
        "fp32, times as fast as torch": median["image, torch"] / median["image, fp32"],
        "int8, times as fast as torch": median["image, torch"] / median["image, int8"],
        "text of 77 tokens, times that of 12": median["16 texts of 77"] / median["16 texts of 12"],
        "int8, share of fp32's bytes": share,
    }


def _in_turn(ways: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """CPU milliseconds of each way, the median of turns, after five that warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 5):
        for name, way in ways.items():
            started = time.process_time()
            way()
            if turn >= 5:
                seconds[name].append(time.process_time() - started)
    return {name: float(np.median(values)) * 1e3 for name, values in seconds.items()}


def _ways(towers: dict[str, DualEncoder], turns: int) -> dict[str, float]:
    """Both ways to 8 bits of an image tower, learned ranges and ranges taken as it runs: what the
    rule of the export takes against what it does not."""
    figures = {}
    print(f"{'image tower':12} {'ranges':16} {'CPU-ms':>7} {'MB':>6} {'cosine':>8}")
    for name, model in towers.items():
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randn(32, 3, *model.spec.preprocess.size, generator=generator)
        with tempfile.TemporaryDirectory() as home, torch.no_grad():
            plain = Path(home, "plain.onnx")
            write_graph(image_tower(model), plain)
            paths = {way: Path(home, f"{way}.onnx") for way in ("learned", "as it runs")}
            for way, path in paths.items():
                write_int8(path, plain, pictures.numpy(), calibrate=way == "learned")
            taken = "learned" if learns_ranges(plain) else "as it runs"
            took = _in_turn(
                {way: _session(path, pictures[:1]) for way, path in paths.items()}, turns
            )
            exact = F.normalize(model.encode_image(pictures), dim=-1)
            for way, path in paths.items():
                found = torch.from_numpy(_session(path, pictures)()[0])
                cosine = float((F.normalize(found, dim=-1) * exact).sum(dim=-1).min())
                size = path.stat().st_size / 1e6
                mark = "*" if way == taken else " "
                print(f"{name:12} {way + mark:16} {took[way]:7.2f} {size:6.2f} {cosine:8.5f}")
        (other,) = paths.keys() - {taken}
        figures[f"{name}, the other way of 8 bits, times as slow"] = took[other] / took[taken]
    return figures


def _session(path: Path, batch: torch.Tensor) -> Callable[[], list[np.ndarray]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    feed = {session.get_inputs()[0].name: batch.contiguous().numpy()}
    return lambda: session.run(None, feed)


def _accuracy(places: Path, *, smoke: bool) -> dict[str, float]:
    """Of trained models; a smoke run has emoji alone, and trains for a step."""
    figures = {}
    print(f"{'exported':8} {'file':32} {'MB':>7} {'points lost':>11}")
    for name, (recipe, change) in TRAINED.items():
        if smoke and name != "emoji":
            continue
        place = places / f"onnx-{name}"
        if not (place / RunFiles.FINAL).is_dir():
            few = ["optim.samples_seen=256"] if smoke else []
            ptft("train", recipe, change, f"run.dir={place}", *few, smoke=smoke)
        with tempfile.TemporaryDirectory() as home:
            options = ["--precision", "int8"] if smoke else []
            ptft("export", place, Path(home, "model"), *options, smoke=smoke)
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
