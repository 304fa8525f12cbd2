"""Patch dropout: what training sees, what evaluation sees, and where it is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ptft.compat import import_open_clip, import_timm
from ptft.errors import ModelError
from ptft.model import DualEncoder, set_patch_dropout
from tests.support.runs import interrupt, largest_difference, run
from tests.support.tiny import arch_section, build, pictures, towers_section

TOWERS = {
    "native": arch_section("tiny-vit", image_size=64),  # 16 patches
    "timm": towers_section(image="test_vit", image_size=64),
    "registers": towers_section(image="test_vit2", image_size=64),
    "rotary": towers_section(
        image="eva02_tiny_patch14_224",
        image_size=56,
        image_args={"depth": 1},
    ),
}


def _seen(model: DualEncoder, images: torch.Tensor) -> int:
    """Tokens that the first block takes."""
    tower = model.image
    blocks = tower.transformer.resblocks if hasattr(tower, "transformer") else tower.trunk.blocks
    found: list[int] = []
    hook = blocks[0].register_forward_pre_hook(lambda _, args: found.append(args[0].shape[1]))
    model.encode_image(images)
    hook.remove()
    return found[0]


@pytest.mark.parametrize("family", TOWERS)
def test_training_sees_a_share_and_evaluation_all(family: str) -> None:
    model = build(TOWERS[family])
    images = pictures(model, 2)
    before, names = model.encode_image(images), list(model.state_dict())
    prefix = getattr(getattr(model.image, "trunk", None), "num_prefix_tokens", 1)
    assert _seen(model, images) == 16 + prefix
    told = set_patch_dropout(model, 0.7)
    assert told == "4 of 16 patches of an image in training"
    assert _seen(model.train(), images) == 4 + prefix
    assert not torch.equal(model.encode_image(images), model.encode_image(images)), "drawn anew"
    assert torch.equal(model.eval().encode_image(images), before)
    assert list(model.state_dict()) == names


def test_it_is_the_layer_that_the_libraries_build_themselves() -> None:
    open_clip = import_open_clip()
    model = build(arch_section("tiny-vit", image_size=64)).train()
    set_patch_dropout(model, 0.5)
    theirs = open_clip.create_model(
        "tiny-vit", force_image_size=64, force_patch_dropout=0.5, force_quick_gelu=True
    ).visual
    theirs.load_state_dict(model.image.state_dict())
    assert torch.equal(*_both(model.image, theirs.train(), pictures(model)))

    model = build(towers_section(image="test_vit", image_size=64)).train()
    set_patch_dropout(model, 0.5)
    trunk = import_timm().create_model("test_vit", img_size=64, num_classes=0, patch_drop_rate=0.5)
    trunk.load_state_dict(model.image.trunk.state_dict())
    assert torch.equal(*_both(model.image.trunk, trunk.train(), pictures(model)))


def _both(one: nn.Module, other: nn.Module, images: torch.Tensor) -> Any:
    outputs = []
    for tower in (one, other):
        torch.manual_seed(3)
        outputs.append(tower(images))
    return outputs


@pytest.mark.parametrize("name", ["tiny-resnet", "tiny-convnext"])
def test_a_convolutional_tower_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"augment\.patch_dropout: the image tower is a \w+"):
        set_patch_dropout(build(arch_section(name)), 0.5)


def test_a_run_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"augment__patch_dropout": 0.5, "optim__samples_seen": 64}
    run(tmp_path / "whole", **changes)
    interrupt(monkeypatch, tmp_path / "cut", 2, **changes)
    run(tmp_path / "cut", resume=True, **changes)
    assert largest_difference(tmp_path / "whole", tmp_path / "cut") == 0.0
