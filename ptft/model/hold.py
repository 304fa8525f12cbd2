"""The files that a model is loaded from, held against what records them, before one is opened.

What is recorded where: a model folder's ``ptft.json`` has every file, a checkpoint's ``state.json``
too, and so have ``run.json`` of a run's last model and ``mix.json`` of a mix, but those from before
they had the weights alone; a folder of open_clip's own records nothing. Bytes that were found right
and have not changed since are not read again (:mod:`ptft.files.digests`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptft.artifact import (
    FolderFiles,
    RunFiles,
    read_json,
    read_mix,
    read_model_info,
    verify_files,
)
from ptft.errors import ArtifactError, DigestError
from ptft.files.bounds import Bounds
from ptft.model.spec import HF_TEXT, SPEC
from ptft.model.store import OWN_WEIGHTS, WEIGHTS
from ptft.model_record import recorded_files

__all__ = ["OPEN_CLIP_WEIGHTS", "STATE", "hold"]

# In the order in which open_clip looks
OPEN_CLIP_WEIGHTS = (FolderFiles.OPEN_CLIP_WEIGHTS, "open_clip_pytorch_model.safetensors")
STATE = "state.json"  # of a checkpoint
_NAMES = (
    *(SPEC, FolderFiles.OPEN_CLIP_CONFIG, OWN_WEIGHTS, *OPEN_CLIP_WEIGHTS, FolderFiles.HEAD),
    *(FolderFiles.TOKENIZER, "tokenizer_config.json", FolderFiles.CONFIG),
)
_FOLDERS = (HF_TEXT, FolderFiles.ADAPTER)


def hold(folder: Path) -> str:
    """Compare what a model in ``folder`` is loaded from with its record.

    Returns:
        What is not recorded and was not held, in a sentence; "" where all is.

    Raises:
        DigestError: a file is not the recorded one, or absent, or there is one that is not
            recorded.
        ArtifactError: the record cannot be read.
    """
    if (folder / FolderFiles.INFO).is_file():
        files, record = read_model_info(folder).files, FolderFiles.INFO
    elif (folder / STATE).is_file():
        files, record = recorded_files(read_json(folder / STATE), folder / STATE), STATE
    elif (run := _run(folder)) is not None and run.values.get("files"):
        files, record = recorded_files(run.values, folder.parent / RunFiles.RUN), RunFiles.RUN
    elif (folder / RunFiles.MIX).is_file() and (mixed := read_mix(folder).files):
        files, record = mixed, RunFiles.MIX
    else:
        return _hold_weights(folder, run)
    opened = _opened(folder, files)
    for name in opened:
        if name not in files:
            raise DigestError(
                f"{folder / name}: {record} does not record it, and what is not recorded is not "
                "opened; move it away"
            )
    verify_files(folder, {name: files[name] for name in opened}, record=record, remember=True)
    return ""


def _opened(folder: Path, files: Mapping[str, Any]) -> list[str]:
    """Names of the files that a model here is loaded from: those recorded, and those present."""
    present = [name for name in _NAMES if (folder / name).is_file()]
    for inner in _FOLDERS:
        present += [
            p.relative_to(folder).as_posix() for p in (folder / inner).rglob("*") if p.is_file()
        ]
    recorded = [n for n in files if n in _NAMES or n.partition("/")[0] in _FOLDERS]
    # of a model folder, model.safetensors is transformers' where there are others
    if not {OWN_WEIGHTS, *OPEN_CLIP_WEIGHTS} & {*files, *present}:
        names = [path.name for path in folder.glob("model*.safetensors")]
        present += names
        recorded += [n for n in files if n.startswith("model") and n.endswith(".safetensors")]
    return sorted({*present, *recorded})


def _run(folder: Path) -> Bounds | None:
    """``run.json`` of the run whose last model a folder is; None of any other folder."""
    path = folder.parent / RunFiles.RUN
    if folder.name != RunFiles.FINAL or not path.is_file():
        return None
    return Bounds(read_json(path), str(path))


def _hold_weights(folder: Path, run: Bounds | None) -> str:
    """Those of a mix, or of a run's last model, from before all their files were recorded.

    Returns: as :func:`hold`.
    """
    path = folder / WEIGHTS
    recorded: object = None
    record = RunFiles.MIX
    if (folder / RunFiles.MIX).is_file():
        recorded = read_mix(folder).weights_digest
    elif run is not None:
        record = RunFiles.RUN
        recorded = run.values.get("weights_digest")
    if recorded is None or not path.is_file():
        return f"{folder}: nothing records what its files are; none was held"
    if not isinstance(recorded, str):
        raise ArtifactError(f"{folder}: {record}: weights_digest: allowed: 64 hex digits")
    entry = {"sha256": recorded, "size": path.stat().st_size}
    verify_files(folder, {WEIGHTS: entry}, record=record, remember=True)
    others = ", ".join(name for name in _opened(folder, {}) if name != WEIGHTS)
    return f"{folder}: {record} records the weights alone; not held: {others}"
