"""Whether an exported file gives the outputs of the model it came from: measured, always.

Golden embeddings are a few inputs and what the checkpoint itself made of them; every later stage (a
pulled folder, a service) is held against them. The pictures are scenes drawn from a fixed seed,
none of the user's, so that they can be published with any model; the texts are the ones that
tokenizers get wrong.

Of a model that was trained through an adapter the run keeps what the adapted, unmerged model made
of the reference inputs. Weights that were merged, saved, read and exported have to give the same.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from ptft.artifact import FolderFiles, GoldenKeys, RunFiles
from ptft.data.sources.scenes import Scenes
from ptft.errors import ArtifactError, ExportError, ParityError
from ptft.evaluate.embed import evaluating
from ptft.files.own import copy_plain
from ptft.model import DualEncoder, check_merged
from ptft.model.adapt import Reference, compare_outputs, read_reference, reference_inputs
from ptft.model.adapt.saved import ADAPTER, ADAPTER_WEIGHTS
from ptft.model_source import LocalSource, ModelFolder, finished_run
from ptft.onnx.boxes import MORE
from ptft.onnx.golden import TOLERANCE, Golden
from ptft.onnx.quantise import GIVES_BACK
from ptft.preprocess import ImagePreprocess
from ptft.recipe import TOWERS_OF, ScenesData

__all__ = [
    "TEXTS",
    "Parity",
    "check_adapted",
    "compare_embeddings",
    "compare_places",
    "embed_golden",
    "find_adapter",
    "find_reference",
    "golden_pictures",
    "make_golden",
    "measure_parity",
    "run_apart",
    "save_golden",
    "ship_adapter",
]

TEXTS = (
    "a photo of a cat",
    "a small striped red circle to the left of a large plain blue square",
    "",
    "caf&eacute; &amp; cr&egrave;me, 3 &lt; 4",
    "two 🐈‍⬛ on a 红色 mat, naïve façade",
    "Don't SHOUT:   it's   the 1st_of_May!",
    "a very long sentence that does not end, " * 24,
)


def golden_pictures(preprocess: ImagePreprocess) -> NDArray[np.uint8]:
    """Four scenes at the model's size, two shaded and two drawn with lines: uint8 (4, H, W, 3)."""
    side = min(max(*preprocess.size, 32), 512)
    pictures = []
    for style in ("shaded", "line"):
        scenes = Scenes(ScenesData(style=style, size=side, test=2), "test")
        pictures += [preprocess.pixels(scenes[index].image) for index in range(2)]
    return np.stack(pictures)


def make_golden(model: DualEncoder) -> Golden:
    """Embed the golden pictures and texts with the model as it is."""
    pixels = golden_pictures(model.spec.preprocess)
    return embed_golden(model, pixels, TEXTS)


@torch.no_grad()
def embed_golden(model: DualEncoder, pixels: NDArray[np.uint8], texts: Sequence[str]) -> Golden:
    """What the model makes of pictures (N, H, W, 3) and T texts."""
    tokens = model.spec.tokenizer(texts)
    images = torch.from_numpy(model.spec.preprocess.normalise(pixels)).to(model.device)
    ids = torch.from_numpy(tokens).to(model.device)
    with evaluating(model):
        text_td = model.encode_text(ids)
        found = None if model.detector is None else model.detect(images, text_td)
        return Golden(
            pixels=pixels,
            texts=texts,
            tokens=tokens,
            image_embeds=model.encode_image(images).float().cpu().numpy(),
            text_embeds=text_td.float().cpu().numpy(),
            class_logits=None if model.head is None else _class_logits(model, images, ids),
            class_thresholds=_thresholds(model),
            detect_logits=None if found is None else found.logits.float().cpu().numpy(),
            detect_boxes=None if found is None else found.boxes.float().cpu().numpy(),
        )


def _thresholds(model: DualEncoder) -> NDArray[np.float64] | None:
    found = model.spec.thresholds
    return None if found is None else np.array(found, np.float64)


def _class_logits(model: DualEncoder, images: Tensor, tokens: Tensor) -> NDArray[np.float32]:
    towers = TOWERS_OF[model.spec.reads]
    count = min(len({"image": images, "text": tokens}[tower]) for tower in towers)
    logits_nc = model.classify(
        images[:count] if "image" in towers else None, tokens[:count] if "text" in towers else None
    )
    return logits_nc.cpu().numpy()


def save_golden(golden: Golden, path: Path) -> None:
    """Write the tensors by :class:`ptft.artifact.GoldenKeys`."""
    tensors: dict[str, NDArray] = {
        GoldenKeys.PIXELS: golden.pixels,
        GoldenKeys.TOKENS: golden.tokens,
        GoldenKeys.IMAGE_EMBEDS: golden.image_embeds,
        GoldenKeys.TEXT_EMBEDS: golden.text_embeds,
    }
    if golden.class_logits is not None:
        tensors[GoldenKeys.CLASS_LOGITS] = golden.class_logits
    if golden.class_thresholds is not None:
        tensors[GoldenKeys.CLASS_THRESHOLDS] = golden.class_thresholds
    if golden.detect_logits is not None and golden.detect_boxes is not None:
        tensors[GoldenKeys.DETECT_LOGITS] = golden.detect_logits
        tensors[GoldenKeys.DETECT_BOXES] = golden.detect_boxes
    # One key of metadata only: safetensors writes several in no fixed order, which would change
    # the folder's digest from one export to the next.
    metadata = {GoldenKeys.TEXTS: json.dumps(golden.texts)}
    plain = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(plain, path, metadata=metadata)


@dataclass(frozen=True)
class Parity:
    """How far a file's outputs are from the model's, over all batches that were run.

    Attributes:
        max_abs: largest absolute difference of an entry of the L2-normalised embeddings; of a
            detector's also of its boxes, shifts and scales.
        max_abs_raw: the same of the embeddings as they come out.
        min_cosine: smallest cosine of a pair of embeddings.
        shapes: of the inputs that were run, ``2x12``.
        bytes: size of the file, external weights included.
        change: of each figure of the recipe's evaluations, the file's minus the checkpoint's, as
            shares of 1; empty where none was measured.
        lost: see :class:`ptft.export.quality.Change`; None where nothing was measured.
    """

    max_abs: float
    max_abs_raw: float
    min_cosine: float
    shapes: list[str]
    bytes: int
    change: dict[str, float] = field(default_factory=dict)
    lost: float | None = None


def measure_parity(
    path: Path,
    batches: Mapping[str, NDArray[np.generic]],
    expected: Mapping[str, NDArray[np.float32]],
    *,
    tolerance: float = TOLERANCE["fp32"],
) -> Parity:
    """Run a file in a fresh process and hold its outputs against the model's.

    Args:
        path: the ONNX file.
        batches: name -> input. Several sizes, so that an axis that is fixed inside shows.
        expected: name -> the model's output, (B, D) un-normalised, or a detector's (B, N, D + 6).

    Raises:
        ExportError: onnxruntime cannot load or run the file.
        ParityError: the outputs differ by more than ``tolerance``.
    """
    outputs = run_apart(path, batches)
    results = [
        (compare_embeddings if expected[name].ndim == 2 else compare_places)(
            outputs[name], expected[name], f"{path.name} {name}"
        )
        for name in batches
    ]
    rank = max(one.ndim for one in expected.values())
    weights = path.with_name(path.name + "_data")
    parity = Parity(
        max_abs=max(result[0] for result in results),
        max_abs_raw=max(result[1] for result in results),
        min_cosine=min(result[2] for result in results),
        shapes=["x".join(map(str, batch.shape)) for batch in batches.values()],
        bytes=path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0),
    )
    if not parity.max_abs <= tolerance:  # NaN is beyond it too
        raise ParityError(
            f"{path.name}: {'normalised embeddings' if rank == 2 else 'places'} "
            f"differ from torch's by {parity.max_abs:.2e} "
            f"(cosine {parity.min_cosine:.6f}); allowed: {tolerance:g}"
        )
    return parity


def compare_embeddings(
    found: NDArray[np.float32], expected: NDArray[np.float32], what: str
) -> tuple[float, float, float]:
    """Largest difference of normalised entries, of raw entries, and the smallest cosine.

    Raises:
        ParityError: the shapes differ.
    """
    if found.shape != expected.shape:
        raise ParityError(f"{what}: shape {found.shape}; the model gives {expected.shape}")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    unit_a = a / np.linalg.norm(a, axis=1, keepdims=True)
    unit_b = b / np.linalg.norm(b, axis=1, keepdims=True)
    cosine = (unit_a * unit_b).sum(axis=1)
    return (
        float(np.abs(unit_a - unit_b).max()),
        float(np.abs(a - b).max()),
        float(cosine.min()),
    )


def compare_places(
    found: NDArray[np.float32], expected: NDArray[np.float32], what: str
) -> tuple[float, float, float]:
    """What :func:`compare_embeddings` says, of a detector's rows (B, N, D + 6); scales count by
    their share.

    Raises:
        ParityError: the shapes differ.
    """
    if found.shape != expected.shape:
        raise ParityError(f"{what}: shape {found.shape}; the model gives {expected.shape}")
    mine, wanted = (rows.reshape(-1, rows.shape[2]) for rows in (found, expected))
    unit, raw, cosine = compare_embeddings(mine[:, :-MORE], wanted[:, :-MORE], what)
    moved = np.abs(mine[:, -MORE:].astype(np.float64) - wanted[:, -MORE:])
    moved[:, 1] /= np.maximum(1, np.abs(wanted[:, 1 - MORE]))
    return max(unit, float(moved.max())), raw, cosine


def run_apart(
    path: Path, batches: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.float32]]:
    """Outputs of an ONNX file for each batch, from a process of its own.

    Raises:
        ExportError: the process failed, onnxruntime's own crash at loading included.
    """
    with tempfile.TemporaryDirectory(prefix="ptft-parity-") as scratch:
        inputs, outputs = Path(scratch, "inputs"), Path(scratch, "outputs")
        save_file({name: np.ascontiguousarray(batch) for name, batch in batches.items()}, inputs)
        script = Path(__file__).with_name("session.py")
        done = subprocess.run(
            [sys.executable, "-P", script, path, inputs, outputs],
            env={**os.environ, **GIVES_BACK},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode < 0:
            raise ExportError(f"{path.name}: onnxruntime was ended by signal {-done.returncode}")
        if done.returncode > 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(f"{path.name}: onnxruntime cannot run it: {last}")
        return load_file(outputs)


def find_adapter(source: LocalSource) -> Path | None:
    """Where the adapter of a model lies alone: beside the final weights of its run, or inside its
    model folder; None where none was trained."""
    if isinstance(source, ModelFolder):
        adapter = source.folder / FolderFiles.ADAPTER
    elif (run := finished_run(source)) is not None:
        adapter = run / RunFiles.ADAPTER
    else:
        return None
    return adapter if adapter.is_dir() else None


def find_reference(source: LocalSource) -> Reference | None:
    """What the adapted model made of the reference inputs; None where no adapter was trained.

    Raises:
        ModelError: its ``adapter/`` is damaged.
    """
    adapter = find_adapter(source)
    return None if adapter is None else read_reference(adapter)


def ship_adapter(source: LocalSource, folder: Path) -> None:
    """Copy what learned into a model folder, where ``source`` has it alone.

    It is a few megabytes beside the merged weights, names the digest of its base, and
    ``ptft.model.load_adapter`` refuses another.
    """
    adapter = find_adapter(source)
    if adapter is not None:
        (folder / FolderFiles.ADAPTER).mkdir()
        for name in (ADAPTER, ADAPTER_WEIGHTS):
            try:
                copy_plain(adapter / name, folder / FolderFiles.ADAPTER / name)
            except OSError as error:
                raise ArtifactError(f"{adapter / name}: {error.strerror or error}") from None


def check_adapted(reference: Reference, model: DualEncoder, folder: Path | None) -> float:
    """Hold a model and its ONNX files against the adapted model, within 1e-5.

    Args:
        model: as it was read for the export.
        folder: holds the files; None: there are none.

    Returns:
        The largest difference of an entry of a normalised embedding.

    Raises:
        AdaptError: one of them gives other embeddings.
        ExportError: onnxruntime cannot run a file.
    """
    worst = check_merged(reference, model, what="the model that is exported")
    if folder is None:
        return worst
    images, tokens = reference_inputs(model)
    found = Reference(
        _embed(folder / FolderFiles.VISION_ONNX, images.numpy()),
        _embed(folder / FolderFiles.TEXT_ONNX, tokens.numpy()),
    )
    return max(worst, compare_outputs(reference, found, "the ONNX files"))


def _embed(path: Path, batch: np.ndarray) -> torch.Tensor:
    rows = torch.from_numpy(run_apart(path, {"reference": batch})["reference"])
    return torch.nn.functional.normalize(rows, dim=-1)
