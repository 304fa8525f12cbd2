"""A dual encoder of sentence-transformers' own modules: for text towers of transformers that pool
in a way that no dual encoder of transformers' does.

``modules.json`` names one router, which sends texts and pictures down two chains: a tower as
transformers loads it alone, the pooling, and the projection as dense layers. Nothing of it is code
of the folder's own. The towers' weights lie in the folder a second time for it.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ptft.artifact import FolderFiles, read_json, write_json
from ptft.compat import prepare_torchvision
from ptft.export.model_files import TOKENIZER_CONFIG
from ptft.export.parity import compare_embeddings
from ptft.export.transformers_blocks import TowerPart, Unlike, refuse
from ptft.export.transformers_model import dual_image, without_origin
from ptft.model import DualEncoder
from ptft.onnx.golden import Golden

__all__ = [
    "ROUTER",
    "RouterLayout",
    "embed_by_modules",
    "remove_router",
    "router_layout",
    "write_router",
]

ROUTER = "Router"
"""sentence-transformers' name of the module."""

_FOLDER = "sentence-transformers"
_FILES = ("modules.json", "config_sentence_transformers.json")
_MODULES = "sentence_transformers.base.modules"
_TYPES = {
    "Transformer": f"{_MODULES}.transformer.Transformer",
    "Dense": f"{_MODULES}.dense.Dense",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
}
_POOLINGS = {"MeanPooler": "mean", "ClsPooler": "cls", "ClsLastHiddenStatePooler": "cls"}
_IDENTITY, _GELU = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.GELU"


@dataclass(frozen=True)
class RouterLayout:
    """The two chains.

    Attributes:
        image: the image tower as transformers has it alone, with its projection.
        text: the text tower likewise, without its projection.
        pooling: of the text tower, by sentence-transformers' name.
        width: of what is pooled.
        layers: the text projection: weight (out, in), activation behind it.
    """

    image: TowerPart
    text: TowerPart
    pooling: str
    width: int
    layers: list[tuple[Tensor, str]]


@torch.no_grad()
def router_layout(model: DualEncoder) -> RouterLayout | str:
    """The chains of a model on the CPU, or why there are none, in words."""
    try:
        return _layout(model)
    except Unlike as reason:
        return str(reason)


def _layout(model: DualEncoder) -> RouterLayout:
    tower, spec = model.text, model.spec
    refuse(spec.adapter is not None, "its modules have no place for an adapter")
    refuse(
        type(tower).__name__ != "HFTextEncoder",
        "its modules have no place for open_clip's own text tower",
    )
    pooler = type(tower.pooler).__name__
    refuse(pooler not in _POOLINGS, f"the text tower pools open_clip's way ({pooler})")
    refuse(
        pooler == "ClsPooler" and getattr(tower.transformer, "pooler", None) is not None,
        "the text tower pools by a layer of its own",
    )
    refuse(
        getattr(tower.config, "is_encoder_decoder", False),
        "the text tower is the half of an encoder-decoder",
    )
    refuse(not spec.text_trimmable, "the text tower masks another id than padding")
    refuse(spec.tokenizer.zeroed_id is not None, "its tokenizer makes zeros of end marks")
    config = without_origin(tower.config.to_dict())
    config["architectures"] = [type(tower.transformer).__name__]
    return RouterLayout(
        image=_alone(dual_image(model)),
        text=TowerPart(config, _with_unused(tower.transformer), None),
        pooling=_POOLINGS[pooler],
        width=tower.config.hidden_size,
        layers=_projection(tower.proj),
    )


def _alone(image: TowerPart) -> TowerPart:
    """An image tower as a folder of its own: the two libraries ask for its width by two names."""
    if image.config["model_type"] != "timm_wrapper":
        return image
    more = {"num_classes": 0, "num_features": image.config["hidden_size"]}
    return replace(image, config={**image.config, **more})


def _projection(layer: Any) -> list[tuple[Tensor, str]]:
    """open_clip's text projection: none, a matrix, or two with a GELU between."""
    if isinstance(layer, nn.Identity):
        return []
    if isinstance(layer, nn.Linear):
        return [(layer.weight, _IDENTITY)]
    first, _, last = layer
    return [(first.weight, _GELU), (last.weight, _IDENTITY)]


def _with_unused(tower: Any) -> dict[str, Tensor]:
    """The weights of a text tower; zeros for the pooling layer that its class has and it has not.

    Without them every loading would warn of random weights, which nothing reads.
    """
    from transformers import AutoModel

    with torch.device("meta"):
        whole = AutoModel.from_config(tower.config, trust_remote_code=False).state_dict()
    unused = {
        name: torch.zeros(tensor.shape)
        for name, tensor in whole.items()
        if name.startswith("pooler.")
    }
    return {**unused, **tower.state_dict()}


def write_router(layout: RouterLayout, folder: Path) -> None:
    """Write the modules into a model folder, which has the tokenizer's and the image processor's
    files already."""
    text, image = (folder / _FOLDER / f"{route}_0_Transformer" for route in ("text", "image"))
    _write_tower(text, layout.text, "text", ("last_hidden_state", "token_embeddings"))
    _write_tower(image, layout.image, "image", ("pooler_output", "sentence_embedding"))
    for name in (FolderFiles.TOKENIZER, TOKENIZER_CONFIG):
        shutil.copy(folder / name, text)
    shutil.copy(folder / FolderFiles.PREPROCESSOR, image)
    # where config.json of the whole folder has timm's keys, transformers looks for them there
    processor = read_json(folder / FolderFiles.PREPROCESSOR)
    write_json(image / "config.json", {**processor, **read_json(image / "config.json")})
    pooling = {"embedding_dimension": layout.width, "pooling_mode": layout.pooling}
    _write(folder / _FOLDER / "text_1_Pooling", {**pooling, "include_prompt": True})
    chains = {"text": [text.name, "text_1_Pooling"], "image": [image.name]}
    for route, layers in (("text", layout.layers), ("image", _projected(layout.image))):
        for weight, activation in layers:
            name = f"{route}_{len(chains[route])}_Dense"
            _write_dense(folder / _FOLDER / name, weight, activation)
            chains[route].append(name)
    _write_index(folder, chains)


def _projected(image: TowerPart) -> list[tuple[Tensor, str]]:
    return [] if image.projection is None else [(image.projection, _IDENTITY)]


def _write_index(folder: Path, chains: dict[str, list[str]]) -> None:
    names = [name for chain in chains.values() for name in chain]
    parameters = {"default_route": "text", "allow_empty_key": True, "route_mappings": {}}
    write_json(
        folder / _FOLDER / "router_config.json",
        {
            "types": {name: _TYPES[name.rpartition("_")[2]] for name in names},
            "structure": chains,
            "parameters": parameters,
        },
    )
    modules, config = _FILES
    kind = f"{_MODULES}.router.{ROUTER}"
    write_json(folder / modules, [{"idx": 0, "name": "0", "path": _FOLDER, "type": kind}])
    write_json(
        folder / config, {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"}
    )


def remove_router(folder: Path) -> None:
    """Remove what :func:`write_router` wrote."""
    shutil.rmtree(folder / _FOLDER, ignore_errors=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


@torch.no_grad()
def embed_by_modules(
    layout: RouterLayout, model: DualEncoder, golden: Golden, folder: Path
) -> float:
    """Load the written towers by transformers, embed the golden inputs as the modules would.

    Returns:
        The largest difference of an entry of a normalised embedding.
    """
    prepare_torchvision()  # transformers imports it
    from transformers import AutoModel

    router = folder / _FOLDER
    towers = {
        route: AutoModel.from_pretrained(
            router / f"{route}_0_Transformer",
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
        ).eval()
        for route in ("text", "image")
    }
    tokens = torch.from_numpy(golden.tokens)
    mask = (tokens != model.spec.tokenizer.pad_id).long()
    words = towers["text"](input_ids=tokens, attention_mask=mask).last_hidden_state
    used = mask[..., None]
    mean = (words * used).sum(dim=1) / used.sum(dim=1)
    texts = mean if layout.pooling == "mean" else words[:, 0]
    pixels = torch.from_numpy(model.spec.preprocess.normalise(golden.pixels))
    found = {"text": texts, "image": towers["image"](pixel_values=pixels).pooler_output}
    worst = 0.0
    for route, expected in (("text", golden.text_embeds), ("image", golden.image_embeds)):
        rows = found[route].flatten(1)
        dense = sorted(router.glob(f"{route}_*_Dense"))
        for number, path in enumerate(dense):
            rows = rows @ load_file(path / "model.safetensors")["linear.weight"].T
            if number < len(dense) - 1:
                rows = nn.functional.gelu(rows)
        worst = max(worst, compare_embeddings(np.asarray(rows), expected, f"{route} by modules")[0])
    return worst


def _write_tower(folder: Path, part: TowerPart, route: str, gives: tuple[str, str]) -> None:
    _write(folder, {**part.config, "dtype": "float32"}, part.state)
    output, feature = gives
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {route: {"method": "forward", "method_output_name": output}},
            "module_output_name": feature,
        },
    )


def _write_dense(folder: Path, weight: Tensor, activation: str) -> None:
    config = {
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "bias": False,
        "activation_function": activation,
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
    }
    _write(folder, config, {"linear.weight": weight})


def _write(folder: Path, config: dict[str, Any], state: dict[str, Tensor] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    if state is not None:
        tensors = {name: x.detach().cpu().contiguous().clone() for name, x in state.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
