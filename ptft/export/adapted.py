"""An exported model that was trained through an adapter, held against the model as it trained.

The run keeps what the adapted, unmerged model made of the reference inputs. Weights that were
merged, saved, read and exported to ONNX have to give the same.
"""

import shutil
from pathlib import Path

import numpy as np
import torch

from ptft.artifact import FolderFiles, RunFiles
from ptft.export.parity import run_apart
from ptft.model import DualEncoder, check_merged
from ptft.model.adapt import Reference, compare_outputs, read_reference, reference_inputs
from ptft.model.adapt.saved import ADAPTER, ADAPTER_WEIGHTS
from ptft.model_source import LocalSource, ModelFolder, finished_run

__all__ = ["check_adapted", "find_adapter", "find_reference", "ship_adapter"]


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
            shutil.copyfile(adapter / name, folder / FolderFiles.ADAPTER / name)


def check_adapted(reference: Reference, model: DualEncoder, folder: Path) -> float:
    """Hold a model and its ONNX files against the adapted model, within 1e-5.

    Args:
        model: as it was read for the export.
        folder: holds the files.

    Returns:
        The largest difference of an entry of a normalised embedding.

    Raises:
        AdaptError: one of them gives other embeddings.
        ExportError: onnxruntime cannot run a file.
    """
    worst = check_merged(reference, model, what="the model that is exported")
    images, tokens = reference_inputs(model)
    found = Reference(
        _embed(folder / FolderFiles.VISION_ONNX, images.numpy()),
        _embed(folder / FolderFiles.TEXT_ONNX, tokens.numpy()),
    )
    return max(worst, compare_outputs(reference, found, "the ONNX files"))


def _embed(path: Path, batch: np.ndarray) -> torch.Tensor:
    rows = torch.from_numpy(run_apart(path, {"reference": batch})["reference"])
    return torch.nn.functional.normalize(rows, dim=-1)
