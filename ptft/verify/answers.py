"""Golden embeddings computed again: by onnxruntime, and by torch where it is installed."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ptft.artifact import PRECISIONS, ModelInfo, tower_file
from ptft.errors import PtftError
from ptft.onnx.golden import TOLERANCE, Golden, allowed, differences, read_golden, run_onnx
from ptft.onnx.model import OnnxModel, tower_names
from ptft.onnx.trial import try_model
from ptft.verify.link import Artefact, Link, broken, holds, unchecked

__all__ = ["check_onnx", "check_torch", "judge", "same_tensors"]


def check_onnx(target: str, folder: Path, info: ModelInfo) -> list[Link]:
    """Run each precision whose towers are there, first within bounds; needs no torch."""
    links = []
    for precision in PRECISIONS:
        towers = tower_names(info)
        if not all(tower_file(tower, precision) in info.files for tower in towers):
            continue  # an export leaves out a file that costs too much
        if not all((folder / tower_file(tower, precision)).is_file() for tower in towers):
            continue  # and a folder may be pulled without some
        name = f"golden onnx {precision}"
        try:
            found, golden = try_model(folder, info, precision), read_golden(folder)
            if found is None:  # it came through before
                found = run_onnx(OnnxModel(folder, info, precision, 1), golden)
            links.append(judge(name, target, found, precision, golden))
        except PtftError as error:
            links.append(broken(name, target, error))
    return links or [broken("golden onnx", target, "no ONNX files")]


def check_torch(target: str, folder: Path) -> Link:
    """Run the weights by torch, where it is installed."""
    name = "golden torch"
    if find_spec("torch") is None:
        return unchecked(name, target, "torch is not installed")
    from ptft.export.parity import embed_golden
    from ptft.model import load_model

    try:
        golden = read_golden(folder)
        again = embed_golden(load_model(folder).float(), golden.pixels, golden.texts)
        golden.check_tokens(again.tokens)
        images, texts = (
            rows / np.linalg.norm(rows, axis=1, keepdims=True)
            for rows in (again.image_embeds, again.text_embeds)
        )
        classes = None if again.class_logits is None else again.class_probabilities
        boxes = None
        if again.detect_logits is not None and again.detect_boxes is not None:
            boxes = (again.detect_logits, again.detect_boxes)
        found = differences(golden, images, texts, classes, boxes)
        return judge(name, target, found, "fp32", golden)
    except PtftError as error:
        return broken(name, target, error)


def judge(
    name: str, target: str, found: Mapping[str, float], precision: str, golden: Golden
) -> Link:
    """Differences from the golden embeddings as a link; it says on how many inputs they are."""
    inputs = f"on {len(golden.pixels)} pictures and {len(golden.texts)} texts: "
    detail = inputs + ", ".join(f"{key} differs by {worst:.1e}" for key, worst in found.items())
    detail += f"; allowed: {TOLERANCE[precision]:g}"
    # NaN is within no bound
    good = all(worst <= allowed(key, precision) for key, worst in found.items())
    return holds(name, target, detail) if good else broken(name, target, detail)


def same_tensors(target: str, folder: Path, run: Artefact) -> Link:
    """Every weight of the folder against the run's, bit for bit, where torch is installed."""
    name = "weights"
    if find_spec("torch") is None:
        return unchecked(name, target, "torch is not installed")
    import torch

    from ptft.model import load_model

    assert run.folder is not None
    try:
        mine, its = (load_model(place).float().state_dict() for place in (folder, run.folder))
    except PtftError as error:
        return broken(name, target, error)
    wrong = sorted(mine.keys() ^ its.keys()) or [
        key for key, tensor in mine.items() if not torch.equal(tensor, its[key])
    ]
    if wrong:
        return broken(name, target, f"{wrong[0]} is not that of {run.target}")
    return holds(name, target, f"{len(mine)} tensors equal to those of {run.target}")
