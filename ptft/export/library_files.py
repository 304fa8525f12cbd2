"""The files by which libraries load the folder, loaded again and held to the model.

One ``config.json`` serves both: what transformers needs, what timm needs beside it, and the image
processor's keys, since transformers takes a folder with timm's keys to keep them there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptft.artifact import FolderFiles, write_json
from ptft.compat import prepare_torchvision
from ptft.errors import ParityError
from ptft.export.owlvit import check_owlvit, convert_detector, owlvit_processor
from ptft.export.parity import compare_embeddings
from ptft.export.router_layout import (
    ROUTER,
    embed_by_modules,
    remove_router,
    router_layout,
    write_router,
)
from ptft.export.timm_layout import TimmLayout, embed_by_timm, timm_layout
from ptft.export.transformers_model import Converted, convert
from ptft.files.tensors import write_tensors
from ptft.model import DualEncoder
from ptft.onnx.golden import Golden

__all__ = ["LIBRARY_TOLERANCE", "Library", "write_library_files"]

LIBRARY_TOLERANCE = 1e-5
"""Largest difference of an entry of a normalised embedding between two libraries, fp32.

Sums in another order leave 1e-7 to 1e-6; a wrong epsilon or activation leaves 1e-4 and more.
"""


@dataclass(frozen=True)
class Library:
    """What a library makes of the folder.

    Attributes:
        loads: the class or architecture that it loads; None where it cannot.
        reason: why it cannot, in words.
        max_abs: largest difference of an entry of a normalised embedding, where it can.
    """

    loads: str | None = None
    reason: str | None = None
    max_abs: float | None = None


def write_library_files(model: DualEncoder, golden: Golden, folder: Path) -> dict[str, Library]:
    """Write ``config.json`` and, where transformers has the exact class, ``model.safetensors``.

    Args:
        model: on the CPU, in eval mode.
        golden: its own embeddings, which the libraries have to give.
        folder: holds open_clip's files already, and none of another export.

    Returns:
        ``transformers``, ``timm`` and ``sentence-transformers`` -> what it loads.

    Raises:
        ParityError: transformers loads the files and gives other embeddings.
    """
    detects = model.detector is not None
    converted = convert_detector(model) if detects else convert(model)
    timm = timm_layout(model)
    processor = model.spec.preprocess.preprocessor_config()
    if detects and isinstance(converted, Converted):
        processor = owlvit_processor(processor)
        write_json(folder / FolderFiles.PREPROCESSOR, processor)
    if isinstance(converted, Converted):
        write_tensors(folder / FolderFiles.TRANSFORMERS_WEIGHTS, converted.state)
        if processor is None and isinstance(timm, TimmLayout):
            timm = "transformers would read its keys for those of an image processor"
    found = {"timm": _write_timm(model, golden, folder, converted, timm, processor)}
    if isinstance(converted, Converted):
        keys = timm if found["timm"].loads is not None else None
        _write_config(folder, converted, keys, processor)
        theirs = _load(folder, converted.name).eval()
        if detects:
            worst = check_owlvit(theirs, model, golden, LIBRARY_TOLERANCE)
        else:
            worst = _check_transformers(theirs, model, golden, converted.name)
        found["transformers"] = Library(loads=converted.name, max_abs=worst)
    else:
        found["transformers"] = Library(reason=converted)
    if detects:
        found["sentence-transformers"] = Library(reason="it has no class that tells boxes")
    else:
        found["sentence-transformers"] = _write_router(model, golden, folder, found["transformers"])
    return found


def _write_router(
    model: DualEncoder, golden: Golden, folder: Path, transformers: Library
) -> Library:
    """What sentence-transformers loads: what transformers does, or else a router of its modules."""
    if not (folder / FolderFiles.PREPROCESSOR).is_file():
        return Library(reason="no image processor of transformers makes its pixels")
    if transformers.loads is not None:
        return Library(loads=transformers.loads)
    layout = router_layout(model)
    if isinstance(layout, str):
        return Library(reason=layout)
    write_router(layout, folder)
    try:
        with _without_bars():
            worst = embed_by_modules(layout, model, golden, folder)
    except Exception as error:  # of whatever transformers' class for the tower raises
        reason = f"transformers cannot load a tower alone ({type(error).__name__})"
    else:
        if worst <= LIBRARY_TOLERANCE:
            return Library(loads=ROUTER, max_abs=worst)
        reason = f"as modules of its own it gives other embeddings (by {worst:.1e})"
    remove_router(folder)
    return Library(reason=reason)


def _write_config(
    folder: Path,
    converted: Converted | str,
    timm: TimmLayout | str | None,
    processor: dict[str, Any] | None,
) -> None:
    values: dict[str, Any] = {}
    if isinstance(timm, TimmLayout):
        values |= processor or {}
        values |= timm.config
    if isinstance(converted, Converted):
        values = {**converted.config, **values}
    if values:
        write_json(folder / FolderFiles.CONFIG, values)
    else:
        (folder / FolderFiles.CONFIG).unlink(missing_ok=True)


def _write_timm(
    model: DualEncoder,
    golden: Golden,
    folder: Path,
    converted: Converted | str,
    timm: TimmLayout | str,
    processor: dict[str, Any] | None,
) -> Library:
    """Write timm's keys and let timm embed the golden pictures; without them where it cannot."""
    if isinstance(timm, str):
        return Library(reason=timm)
    _write_config(folder, converted, timm, processor)
    try:
        embeds = embed_by_timm(folder, golden, model.spec.preprocess)
        worst, _, _ = compare_embeddings(embeds, golden.image_embeds, "timm")
    except Exception as error:  # timm raises whatever PyTorch does
        kind = type(error).__name__
        reason = f"it cannot load open_clip's weights into its {timm.name} ({kind})"
    else:
        if worst <= LIBRARY_TOLERANCE:
            return Library(loads=timm.name, max_abs=worst)
        reason = f"as {timm.name} it gives other embeddings (by {worst:.1e})"
    _write_config(folder, converted, None, processor)
    return Library(reason=reason)


@torch.no_grad()
def _check_transformers(theirs: Any, model: DualEncoder, golden: Golden, name: str) -> float:
    """Hold what transformers loaded of the folder to the golden embeddings.

    Raises:
        ParityError: embeddings or logits differ.
    """
    tokens = torch.from_numpy(golden.tokens)
    inputs = {
        "input_ids": tokens,
        "pixel_values": torch.from_numpy(model.spec.preprocess.normalise(golden.pixels)),
    }
    if model.spec.text_trimmable:
        inputs["attention_mask"] = (tokens != model.spec.tokenizer.pad_id).long()
    found = theirs(**inputs)
    worst = 0.0
    for what, expected in (("image", golden.image_embeds), ("text", golden.text_embeds)):
        embeds = getattr(found, f"{what}_embeds").numpy()
        difference, _, _ = compare_embeddings(embeds, expected, f"{name} {what}")
        if not difference <= LIBRARY_TOLERANCE:  # NaN is beyond it too
            raise ParityError(
                f"{name}: {what} embeddings differ from the model's by "
                f"{difference:.2e}; allowed: {LIBRARY_TOLERANCE:g}"
            )
        worst = max(worst, difference)
    _check_logits(model, golden, found.logits_per_image.numpy(), name)
    return worst


def _check_logits(model: DualEncoder, golden: Golden, found: np.ndarray, name: str) -> None:
    """Logits tell whether the scale and the bias arrived; embeddings do not."""
    image, text = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (golden.image_embeds.astype(np.float64), golden.text_embeds.astype(np.float64))
    )
    scale = float(model.logit_scale.exp())
    bias = 0.0 if model.logit_bias is None else float(model.logit_bias)
    expected = scale * image @ text.T + bias
    allowed = LIBRARY_TOLERANCE * scale * image.shape[1] ** 0.5 + LIBRARY_TOLERANCE * abs(bias)
    worst = float(np.abs(found - expected).max())
    if not worst <= allowed:
        raise ParityError(
            f"{name}: logits differ from the model's by {worst:.2e}; allowed: {allowed:.1e}"
        )


def _load(folder: Path, name: str) -> Any:
    """The folder in a class of transformers, as anybody would load it.

    Raises:
        ParityError: a weight is missing or left over.
    """
    prepare_torchvision()  # transformers imports it
    import transformers

    with _without_bars():
        theirs, report = getattr(transformers, name).from_pretrained(
            folder,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            keys = ", ".join(sorted(map(str, report[what]))[:3])
            raise ParityError(f"{name}: {what.replace('_', ' ')}: {keys}")
    return theirs


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers inside."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
