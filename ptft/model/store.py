"""A model in a folder, by ptft's own names: weights, specification, tokenizer; and the files that
any model is loaded from, held against what records them, before one is opened.

What is recorded where: a model folder's ``ptft.json`` has every file, a checkpoint's ``state.json``
too, and so have ``run.json`` of a run's last model and ``mix.json`` of a mix, but those from before
they had the weights alone; a folder of open_clip's own records nothing. Bytes that were found right
and have not changed since are not read again (:mod:`ptft.files.digests`).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ptft.artifact import FolderFiles, RunFiles, read_json, read_model_info, verify_files
from ptft.errors import ArtifactError, DigestError, ModelError
from ptft.files.bounds import Bounds
from ptft.files.digests import HeldFiles
from ptft.files.tensors import TensorFiles, tensor_file, write_tensors
from ptft.model.adapt import rebuild
from ptft.model.detecting import restore_detector
from ptft.model.encoder import DualEncoder
from ptft.model.foreign import check_architecture
from ptft.model.names import check_fit
from ptft.model.spec import HF_TEXT, SPEC, ModelSpec, load_spec, save_spec
from ptft.model.towers import build_towers, seeded
from ptft.model_record import read_mix, recorded_files

__all__ = [
    "MODEL",
    "OPEN_CLIP_WEIGHTS",
    "OWN_WEIGHTS",
    "STATE",
    "WEIGHTS",
    "describe_model",
    "hold",
    "load_stored",
    "load_weights",
    "save_hf_config",
    "save_model",
    "shell",
]

MODEL = "model"
WEIGHTS = tensor_file(MODEL)
_OWN = "ptft_model"
OWN_WEIGHTS = tensor_file(_OWN)  # in a model folder, where model.safetensors is transformers'


def save_model(model: DualEncoder, folder: Path, *, weights: str = WEIGHTS) -> None:
    """Write the weights, ``model.json``, ``tokenizer.json`` (and ``hf_text/``).

    Args:
        weights: the file for them, ``WEIGHTS`` or ``OWN_WEIGHTS``.
    """
    describe_model(model, folder)
    write_tensors(folder / weights, model.state_dict())


def describe_model(model: DualEncoder, folder: Path) -> None:
    """Write all that :func:`save_model` does, but for the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    save_spec(model.spec, folder)
    if "hf_model_name" in model.spec.config["text_cfg"]:
        save_hf_config(model, folder / HF_TEXT)


def save_hf_config(model: DualEncoder, folder: Path) -> None:
    """Write ``config.json`` of a transformers text tower, without where it was read from."""
    config = model.text.config
    config.name_or_path = ""
    config.save_pretrained(folder)


def load_stored(folder: Path) -> DualEncoder:
    """The model that :func:`save_model` wrote; needs no network.

    Raises:
        ArtifactError, ModelError: a file is absent, damaged, or does not fit.
    """
    spec = load_spec(folder)
    stem = _OWN if (folder / OWN_WEIGHTS).is_file() else MODEL
    with TensorFiles(folder, stem) as files:
        # what decides the parts; the rest is read into its place, and not held twice
        deciding = [name for name in files.names() if name.startswith(("head.", "logit_"))]
        model = shell(spec, folder, {name: files.read(name) for name in deciding})
        _fill(model, files)
    return model


def load_weights(model: DualEncoder, folder: Path) -> None:
    """Put the weights of a folder into a model of the same architecture, in place.

    Either side may be sharded: only the rows that are here are read.

    Raises:
        ModelError: a weight does not fit.
        ArtifactError: a file is absent or damaged.
    """
    with TensorFiles(folder, MODEL) as files:
        _fill(model, files)


def _fill(model: DualEncoder, files: TensorFiles) -> None:
    own = model.state_dict()
    shapes = {name: files.shape(name) for name in files.names()}
    check_fit(own, shapes, source=files.label)
    for name, tensor in own.items():
        files.fill(name, tensor)


def shell(spec: ModelSpec, folder: Path, state: dict[str, Tensor], *, seed: int = 0) -> DualEncoder:
    """A model of the architecture of ``spec``, with the parts that ``state`` has weights for.

    Its weights are random, from ``seed``.
    """
    hf_folder = folder / HF_TEXT if (folder / HF_TEXT).is_dir() else None
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    where = str(folder / SPEC)
    check_architecture(spec.config, spec.image_args, where, weights=weights, hf_folder=hf_folder)
    with seeded(seed):
        image, text = build_towers(
            spec.config,
            image_args=spec.image_args,
            timm_input_size=spec.timm_input_size,
            hf_folder=hf_folder,
        )
        biased = "logit_bias" in state
        model = DualEncoder(image, text, spec, logit_bias=0.0 if biased else None)
        if "head.weight" in state:
            if len(state["head.weight"]) != len(spec.classes):
                raise ModelError(
                    f"{folder / SPEC}: {len(spec.classes)} classes; the head has "
                    f"{len(state['head.weight'])} rows"
                )
            model.set_head(
                state["head.weight"],
                spec.classes,
                spec.templates,
                reads=spec.reads,
                thresholds=spec.thresholds,
            )
        if spec.detector is not None:
            restore_detector(model)
        if model.head is not None and "head.keys" in state:
            model.head.remember(state["head.keys"], state["head.labels"], alpha=1.0, beta=1.0)
    if spec.adapter is not None:
        rebuild(model)
    return model


# In the order in which open_clip looks
OPEN_CLIP_WEIGHTS = (FolderFiles.OPEN_CLIP_WEIGHTS, "open_clip_pytorch_model.safetensors")
STATE = "state.json"  # of a checkpoint
_NAMES = (
    *(SPEC, FolderFiles.OPEN_CLIP_CONFIG, OWN_WEIGHTS, *OPEN_CLIP_WEIGHTS, FolderFiles.HEAD),
    *(FolderFiles.DETECTOR, FolderFiles.TOKENIZER, "tokenizer_config.json", FolderFiles.CONFIG),
)
_FOLDERS = (HF_TEXT, FolderFiles.ADAPTER)


def hold(folder: Path) -> HeldFiles:
    """Compare what a model in ``folder`` is loaded from with its record.

    Returns:
        The files as they were then, and what is not recorded and was not held.

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
    return verify_files(
        folder, {name: files[name] for name in opened}, record=record, remember=True
    )


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


def _hold_weights(folder: Path, run: Bounds | None) -> HeldFiles:
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
        return HeldFiles({}, f"{folder}: nothing records what its files are; none was held")
    if not isinstance(recorded, str):
        raise ArtifactError(f"{folder}: {record}: weights_digest: allowed: 64 hex digits")
    entry = {"sha256": recorded, "size": path.stat().st_size}
    held = verify_files(folder, {WEIGHTS: entry}, record=record, remember=True)
    others = ", ".join(name for name in _opened(folder, {}) if name != WEIGHTS)
    return replace(held, unheld=f"{folder}: {record} records the weights alone; not held: {others}")
