"""A model in a folder, by ptft's own names: weights, specification, tokenizer."""

from pathlib import Path

from torch import Tensor

from ptft.errors import ModelError
from ptft.files.tensors import TensorFiles, tensor_file, write_tensors
from ptft.model.adapt import rebuild
from ptft.model.encoder import DualEncoder
from ptft.model.foreign import check_architecture
from ptft.model.names import check_fit, fit_state_dict
from ptft.model.spec import HF_TEXT, SPEC, ModelSpec, load_spec, save_spec
from ptft.model.towers import build_towers, seeded

__all__ = [
    "MODEL",
    "OWN_WEIGHTS",
    "WEIGHTS",
    "describe_model",
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
        state = {name: files.read(name) for name in files.names()}
    model = shell(spec, folder, state)
    fit_state_dict(model, state, source=files.label)
    return model


def load_weights(model: DualEncoder, folder: Path) -> None:
    """Put the weights of a folder into a model of the same architecture, in place.

    Either side may be sharded: only the rows that are here are read.

    Raises:
        ModelError: a weight does not fit.
        ArtifactError: a file is absent or damaged.
    """
    own = model.state_dict()
    with TensorFiles(folder, MODEL) as files:
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
            model.set_head(state["head.weight"], spec.classes, spec.templates, reads=spec.reads)
        if model.head is not None and "head.keys" in state:
            model.head.remember(state["head.keys"], state["head.labels"], alpha=1.0, beta=1.0)
    rebuild(model)
    return model
