"""Layer-wise rates: which layer of a tower each parameter belongs to."""

from typing import Any

import pytest
from torch import nn

from ptft.compat import import_timm
from ptft.model import layer_depths
from ptft.optim import (
    build_optimizer,
)
from ptft.recipe import OptimSection
from tests.support.tiny import arch_section, build, hf_section, hf_text_folder, towers_section


def test_layer_decay_of_a_timm_tower_is_timms() -> None:
    from timm.optim import param_groups_layer_decay

    timm = import_timm()
    model = build(towers_section(image="test_vit"))
    section = OptimSection(epochs=1, lr=1.0, lr_text=0.5, layer_decay=0.7)
    optimizer = build_optimizer(model, section, depths=layer_depths(model))
    scales = {n: g["base_lr"] for g in optimizer.param_groups for n in g["names"]}
    classifier = timm.create_model("test_vit", num_classes=3)
    names = {id(parameter): name for name, parameter in classifier.named_parameters()}
    theirs = {
        names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(classifier, layer_decay=0.7)
        for parameter in group["params"]
    }
    for name, scale in theirs.items():
        ours = "image.head.proj.weight" if name.startswith("head.") else f"image.trunk.{name}"
        assert scales[ours] == pytest.approx(scale), name
    assert scales["text.text_projection"] == 0.5
    assert scales["logit_scale"] == 1.0


def _depths(model: nn.Module, *parts: str) -> list[set[int]]:
    """The depths of the parameters under each part."""
    depths = layer_depths(model)  # type: ignore[arg-type]
    assert depths.keys() == dict(model.named_parameters()).keys()
    found = [{d for name, d in depths.items() if name.startswith(part)} for part in parts]
    assert all(found), "each part is there"
    return found


def test_layer_depths_of_open_clips_towers() -> None:
    blocks = [f"text.transformer.resblocks.{i}." for i in range(2)]
    text = ["text.token_embedding", "text.positional", *blocks, "text.ln_final", "text.text_proj"]
    expected = [{3}, {3}, {2}, {1}, {1}, {0}]
    vit = build(arch_section("tiny-vit"))
    assert _depths(vit, *text) == expected
    image = [name.replace("text.", "image.") for name in blocks]
    stem = ["image.conv1", "image.class_embedding", "image.positional", "image.ln_pre"]
    assert _depths(vit, *stem, *image, "image.ln_post", "image.proj") == [{3}] * 4 + expected[2:]
    assert _depths(vit, "logit_scale") == [{0}]
    resnet = build(arch_section("tiny-resnet"))
    stages = [f"image.layer{i}." for i in range(1, 5)]  # a bottleneck each
    found = _depths(resnet, "image.conv1", "image.bn3", *stages, "image.attnpool")
    assert found == [{5}, {5}, {4}, {3}, {2}, {1}, {0}]


def test_layer_depths_of_a_transformers_tower(tmp_path: Any) -> None:
    model = build(hf_section(hf_text_folder(tmp_path), text_pool="cls_pooler"))
    parts = ["embeddings", "encoder.layer.0", "encoder.layer.1", "pooler"]
    found = _depths(model, *(f"text.transformer.{part}" for part in parts), "text.proj")
    assert found == [{3}, {2}, {1}, {0}, {0}]
