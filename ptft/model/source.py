"""A model from wherever it lies: a run, a checkpoint, a folder of ptft or open_clip, the Hub."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ptft.artifact import PICKLES, FolderFiles, ModelInfo, read_json, read_model_info
from ptft.errors import ModelError
from ptft.files.bounds import Bounds, shown
from ptft.files.digests import HeldFiles
from ptft.model.adapt import merge
from ptft.model.encoder import DualEncoder
from ptft.model.foreign import check_architecture, read_safetensors
from ptft.model.names import fit_state_dict, from_open_clip
from ptft.model.spec import HF_TEXT, SPEC, ModelSpec, load_spec
from ptft.model.store import OPEN_CLIP_WEIGHTS, WEIGHTS, hold, load_stored, shell
from ptft.model.tokenizers import build_tokenizer
from ptft.model.towers import build_towers, refuse_unsupported, seeded, text_trimmable
from ptft.model_record import check_tokenizer_values
from ptft.model_source import fetch_source, model_folder
from ptft.preprocess import ImagePreprocess, TextTokenizer
from ptft.preprocess.decoding import READING

__all__ = ["describe_spec", "load_model", "load_untrained", "open_clip_weights"]


def load_model(
    source: str | Path, *, verify: bool = True, tell: Callable[[str], None] | None = None
) -> DualEncoder:
    """Read a model, in eval mode, on the CPU; nothing in it is run, and nothing else is fetched.

    Args:
        source: a run folder (its ``final``, else its newest checkpoint), a checkpoint, a model
            folder that ptft or open_clip wrote, or ``org/repo@revision`` on the Hub.
        verify: hold its files against the digests that it records (:mod:`ptft.model.store`); False:
            read a folder that was changed on purpose.
        tell: told what could not be held, since nothing records it.

    An adapter in a checkpoint is merged, where its kind can be.

    Raises:
        ModelError: there is no model, or its weights do not fit, or they are pickled, or its
            configuration would run or fetch something (:mod:`ptft.model.foreign`).
        DigestError: a file is not the one that is recorded.
        AdaptError: merged, the model gives other embeddings.
        ArtifactError: a file of the folder is damaged.
        HubError: the Hub refused, or cannot be reached.
    """
    found = fetch_source(source)
    folder = model_folder(found)
    held = hold(folder) if verify else HeldFiles({})
    if held.unheld and tell is not None:
        tell(held.unheld)
    has_open_clip = any((folder / name).is_file() for name in OPEN_CLIP_WEIGHTS)
    if (folder / SPEC).is_file() and not has_open_clip:
        model = load_stored(folder)
        if model.spec.adapter is not None:
            model = merge(model)
    elif (folder / SPEC).is_file():
        model = _fill(load_spec(folder), folder)
    else:
        model = _from_open_clip_folder(folder, found.label)
    _add_head(model, folder)
    held.check_unchanged()
    return model.eval()


def load_untrained(source: str | Path, *, seed: int) -> DualEncoder:
    """The architecture of a model, its tokenizer and preprocessing, with random weights.

    Raises: as :func:`load_model`.
    """
    model = load_model(source)
    spec = model.spec.with_(classes=(), templates=(), reads="image", thresholds=None, aligned=False)
    kept = {name: value for name, value in model.state_dict().items() if name == "logit_bias"}
    return shell(spec, model_folder(fetch_source(source)), kept, seed=seed)


def open_clip_weights(folder: Path) -> Path:
    """The safetensors file of a folder that open_clip reads.

    Raises:
        ModelError: there is none; a pickle is named.
    """
    found = next((folder / n for n in OPEN_CLIP_WEIGHTS if (folder / n).is_file()), None)
    if found is not None:
        return found
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"{folder}: holds {pickles[0]}, a pickle, which may run code when it is read; "
            f"allowed: {' or '.join(OPEN_CLIP_WEIGHTS)}"
        )
    if (folder / WEIGHTS).is_file():  # open_clip's last choice
        return folder / WEIGHTS
    raise ModelError(
        f"{folder}: no safetensors weights; allowed: {' or '.join(OPEN_CLIP_WEIGHTS)} "
        "(a pickle, such as open_clip_pytorch_model.bin, is never fetched nor read)"
    )


def describe_spec(
    name: str,
    config: Mapping[str, Any],
    text: nn.Module,
    tokenizer: tuple[TextTokenizer, Mapping[str, Any]],
    preprocess: ImagePreprocess,
    **more: Any,
) -> ModelSpec:
    """A specification; whether texts may be trimmed is read off the text tower."""
    reader, reader_config = tokenizer
    trimmable = not reader.pad_left and text_trimmable(config, text, pad_id=reader.pad_id)
    return ModelSpec(
        name=name,
        config=dict(config),
        preprocess=preprocess,
        tokenizer=reader.with_(trimmable=trimmable),
        tokenizer_config=dict(reader_config),
        **more,
    )


def _fill(spec: ModelSpec, folder: Path) -> DualEncoder:
    """The model of ``spec`` with the open_clip weights of a folder."""
    path = open_clip_weights(folder)
    state = read_safetensors(path)
    model = shell(spec, folder, _without_head(state))
    fitted = from_open_clip(state, model)
    if model.detector is not None:
        head = read_safetensors(folder / FolderFiles.DETECTOR)
        fitted |= {f"detector.{name}": tensor for name, tensor in head.items()}
    fit_state_dict(model, fitted, source=str(path))
    return model


def _from_open_clip_folder(folder: Path, label: str) -> DualEncoder:
    """A model of which there is only ``open_clip_config.json`` and weights."""
    path = folder / FolderFiles.OPEN_CLIP_CONFIG
    values = read_json(path)
    if not isinstance(values, dict) or "model_cfg" not in values:
        raise ModelError(f"{path}: no model_cfg")
    where = f"{path}: model_cfg"
    config = Bounds(values["model_cfg"], where, ModelError).values
    for key in ("vision_cfg", "text_cfg"):
        Bounds(config.get(key), f"{where}: {key}", ModelError)
    refuse_unsupported(label, config)
    weights = open_clip_weights(folder)
    hf_folder = folder / HF_TEXT if (folder / HF_TEXT).is_dir() else None
    size = weights.stat().st_size
    check_architecture(config, None, where, weights=size, hf_folder=hf_folder)
    with seeded(0):
        image, text = build_towers(config, hf_folder=hf_folder)
    info = _info(folder)
    reading = READING
    if info is not None:
        reading = ImagePreprocess.from_config(info.preprocess).reading
        check_tokenizer_values(info.tokenizer, f"{folder / FolderFiles.INFO}: tokenizer")
        tokenizer = TextTokenizer(folder / FolderFiles.TOKENIZER, **info.tokenizer)
        reader = (tokenizer, _tokenizer_config(folder))
    else:
        named = config["text_cfg"].get("hf_tokenizer_name")
        if named and not (folder / FolderFiles.TOKENIZER).is_file():
            raise ModelError(
                f"{where}: text_cfg.hf_tokenizer_name: {shown(named)}: another repository, which "
                f"would have to be fetched; allowed: its {FolderFiles.TOKENIZER} beside this file"
            )
        reader = build_tokenizer(config, folder=folder)
    given = Bounds(values.get("preprocess_cfg", {}), f"{path}: preprocess_cfg", ModelError)
    preprocess_cfg = {**given.values, "size": image.image_size}
    spec = describe_spec(
        info.name if info is not None else label.split("@")[0].rpartition("/")[2],
        config,
        text,
        reader,
        ImagePreprocess.from_config(preprocess_cfg, unsaid=reading),
        base=label,
        aligned=False if info is not None and _never_aligned(info) else None,
    )
    state = read_safetensors(weights)
    biased = "logit_bias" in state or config.get("init_logit_bias") is not None
    model = DualEncoder(image, text, spec, logit_bias=0.0 if biased else None)
    fit_state_dict(model, from_open_clip(state, model), source=str(weights))
    return model


def _add_head(model: DualEncoder, folder: Path) -> None:
    """The classifier of an exported folder, which lies in a file of its own."""
    path = folder / FolderFiles.HEAD
    info = _info(folder)
    if not path.is_file() or info is None:
        return
    state = read_safetensors(path)
    linear = {"weight", "bias"}
    fits = set(state) in (linear, linear | FolderFiles.HEAD_CACHE) and state["weight"].ndim == 2
    if not fits or len(state["weight"]) != len(info.classes):
        raise ModelError(
            f"{path}: allowed: weight and bias of {len(info.classes)} rows, a row for each class "
            f"in {FolderFiles.INFO}, and {', '.join(sorted(FolderFiles.HEAD_CACHE))} or none of "
            "them"
        )
    model.set_head(
        state["weight"],
        info.classes,
        info.templates,
        reads=info.reads,
        thresholds=info.thresholds or None,
    )
    assert model.head is not None
    if "keys" in state:
        model.head.remember(state["keys"], state["labels"], alpha=1.0, beta=1.0)
    model.head.load_state_dict(state)


def _never_aligned(info: ModelInfo) -> bool:
    """Whether it is on record that its towers never learned together; a refusal says so too, in
    folders from before there was a key of its own."""
    return info.aligned is False or info.texts == "refused"


def _info(folder: Path) -> ModelInfo | None:
    return read_model_info(folder) if (folder / FolderFiles.INFO).is_file() else None


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
