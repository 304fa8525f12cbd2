"""Golden embeddings computed again: by onnxruntime from the ONNX files, by torch from the weights.

Letters in shapes: B batch, D width of the embeddings, L tokens of a text.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ptft.artifact import FolderFiles, ModelInfo
from ptft.errors import ArtifactError, PtftError
from ptft.golden import TOLERANCE, Golden, difference, probabilities, read_golden
from ptft.preprocess import ImagePreprocess, TextTokenizer
from ptft.verify.link import Artefact, Link, broken, holds, unchecked

__all__ = ["check_onnx", "check_torch", "judge", "same_tensors"]

_PRECISIONS = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}  # what stands before .onnx


def check_onnx(target: str, folder: Path, info: ModelInfo) -> list[Link]:
    """Run each precision whose two towers are there; needs no torch."""
    links = []
    for precision, suffix in _PRECISIONS.items():
        towers = [
            name.replace(".onnx", f"{suffix}.onnx")
            for name in (FolderFiles.VISION_ONNX, FolderFiles.TEXT_ONNX)
        ]
        present = [name for name in towers if name in info.files]
        if not present:
            continue
        name = f"golden onnx {precision}"
        try:
            if len(present) < len(towers):
                raise ArtifactError(f"{present[0]} has no other tower")
            links.append(_run_onnx(name, target, folder, info, towers, precision))
        except PtftError as error:
            links.append(broken(name, target, error))
    return links or [broken("golden onnx", target, "no ONNX files")]


def _run_onnx(
    name: str, target: str, folder: Path, info: ModelInfo, towers: list[str], precision: str
) -> Link:
    golden = read_golden(folder)
    tokenizer = TextTokenizer(folder / FolderFiles.TOKENIZER, **info.tokenizer)
    golden.check_tokens(tokenizer(golden.texts))
    pixels = ImagePreprocess.from_config(info.preprocess).normalise(golden.pixels)
    # int8 scales activations over the whole batch, so that an embedding depends on its neighbours
    size = 1 if precision == "int8" else len(golden.tokens)
    images = _tower(folder / towers[0], pixels, precision, size)
    texts = _tower(folder / towers[1], tokenizer.trim(golden.tokens), precision, size)
    classes = None
    if (folder / FolderFiles.HEAD).is_file():
        head = load_file(folder / FolderFiles.HEAD)
        classes = probabilities(info.logit_scale * images @ head["weight"].T + head["bias"])
    return judge(name, target, golden, precision, images, texts, classes)


def _tower(path: Path, batch: NDArray, precision: str, size: int) -> NDArray[np.float32]:
    """L2-normalised embeddings (B, D) of an ONNX file, ``size`` inputs at a time."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    if precision == "fp16":
        # NchwcTransformer, which only ALL runs, crashes on fp16 vision towers (1.31)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        pieces = [batch[at : at + size] for at in range(0, len(batch), size)]
        rows = np.concatenate([session.run(None, {name: piece})[0] for piece in pieces])
    except Exception as error:  # onnxruntime's own errors share no base below Exception
        raise ArtifactError(f"{path}: onnxruntime cannot run it: {error}") from None
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def judge(
    name: str,
    target: str,
    golden: Golden,
    precision: str,
    images: NDArray[np.float32],
    texts: NDArray[np.float32],
    classes: NDArray[np.float32] | None,
) -> Link:
    """Normalised embeddings, and probabilities of the classes, against the golden ones.

    Raises:
        ArtifactError: a shape differs.
    """
    bound = TOLERANCE[precision]
    found = {
        "pictures": (difference(images, golden.image_embeds, "pictures"), bound),
        "texts": (difference(texts, golden.text_embeds, "texts"), bound),
    }
    if golden.class_logits is not None and classes is not None:
        wanted = probabilities(golden.class_logits)
        # a logit scale of 100 turns a difference of 1e-4 in an embedding into one of 1e-2
        found["classes"] = float(np.abs(classes - wanted).max()), 100 * bound
    detail = ", ".join(f"{what} differ by {worst:.1e}" for what, (worst, _) in found.items())
    if all(worst <= allowed for worst, allowed in found.values()):  # NaN is within no bound
        return holds(name, target, f"{detail}, allowed {bound:g}")
    return broken(name, target, f"{detail}; allowed: {bound:g}")


def check_torch(target: str, folder: Path) -> list[Link]:
    """Run the weights by torch, where it is installed."""
    name = "golden torch"
    if find_spec("torch") is None:
        return [unchecked(name, target, "torch is not installed")]
    from ptft.export.golden import embed_golden
    from ptft.model import load_model

    try:
        golden = read_golden(folder)
        model = load_model(folder).float()
        again = embed_golden(model, golden.pixels, golden.texts)
        golden.check_tokens(again.tokens)
        images, texts = (
            rows / np.linalg.norm(rows, axis=1, keepdims=True)
            for rows in (again.image_embeds, again.text_embeds)
        )
        classes = None if again.class_logits is None else probabilities(again.class_logits)
        return [judge(name, target, golden, "fp32", images, texts, classes)]
    except PtftError as error:
        return [broken(name, target, error)]


def same_tensors(target: str, folder: Path, run: Artefact) -> list[Link]:
    """Every weight of the folder against the run's, bit for bit, where torch is installed."""
    name = "weights"
    if find_spec("torch") is None:
        return [unchecked(name, target, "torch is not installed")]
    import torch

    from ptft.model import load_model

    assert run.folder is not None
    try:
        mine, its = (load_model(place).float().state_dict() for place in (folder, run.folder))
    except PtftError as error:
        return [broken(name, target, error)]
    wrong = sorted(mine.keys() ^ its.keys()) or [
        key for key, tensor in mine.items() if not torch.equal(tensor, its[key])
    ]
    if wrong:
        return [broken(name, target, f"{wrong[0]} is not that of {run.target}")]
    return [holds(name, target, f"{len(mine)} tensors equal to those of {run.target}")]
