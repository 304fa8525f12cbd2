"""A tower's trunk and projection, held to the tower as a whole."""

from pathlib import Path

import pytest
import torch

from ptft.data import KeptFeatures
from ptft.errors import ModelError
from ptft.model import DualEncoder, apply_adapt
from ptft.model.towers import trunk_digest, trunk_learns
from ptft.model.trunk import image_trunk, project
from ptft.recipe import ClipObjective, FullAdapt, SiglipObjective
from tests.support import tiny

KINDS = ["tiny-vit", "tiny-resnet", "tiny-convnext", "tiny-siglip", "towers", "mlp", "none", "bert"]


def model_of(kind: str, folder: Path) -> DualEncoder:
    match kind:
        case "towers":
            return tiny.build(tiny.towers_section())
        case "mlp":
            return tiny.build(tiny.towers_section(image="test_vit", image_projection="mlp"))
        case "none":
            section = tiny.towers_section(
                image="test_vit", image_projection="none", embed_dim=64, text_projection="none"
            )
            text = section.text.model_copy(update={"width": 64})  # type: ignore[union-attr]
            return tiny.build(section.model_copy(update={"text": text}))
        case "bert":
            return tiny.build(tiny.hf_section(tiny.hf_text_folder(folder), text_projection="mlp"))
    objective = SiglipObjective() if kind == "tiny-siglip" else None
    return tiny.build(tiny.arch_section(kind), objective)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_projecting_what_the_trunk_gives_is_the_tower(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, tmp_path)
    images, tokens = tiny.pictures(model), tiny.tokens(model)
    features = model.image_trunk(images)
    assert features.shape[0] == len(images) and features.ndim == 2
    # CLIP's ResNet pools with a query for each place and keeps one; the trunk asks that one alone
    atol = 1e-6 if kind == "tiny-resnet" else 0.0
    whole = model.image(images)
    torch.testing.assert_close(project(model.image, features), whole, atol=atol, rtol=0)
    text = model.text_trunk(tokens)
    assert text.is_floating_point() and text.ndim == 2
    whole = model.encode_text(tokens)
    torch.testing.assert_close(project(model.text, text), whole, atol=0, rtol=0)
    kept = model(KeptFeatures(features), KeptFeatures(text))
    for one, other in zip(kept, model(images, tokens), strict=True):
        torch.testing.assert_close(one, other, atol=max(atol, 1e-6), rtol=0)


def test_the_digest_is_of_the_trunk_alone() -> None:
    model = tiny.build(tiny.arch_section("tiny-vit"))
    before = trunk_digest(model.image)
    with torch.no_grad():
        model.image.proj.add_(1.0)
    assert trunk_digest(model.image) == before
    with torch.no_grad():
        model.image.ln_pre.weight[0] += 1e-3
    assert trunk_digest(model.image) != before


def test_a_locked_tower_has_a_projection_that_learns_and_a_trunk_that_does_not() -> None:
    model = tiny.build(tiny.arch_section("tiny-resnet"))
    apply_adapt(model, FullAdapt(lock=["image"]), ClipObjective())
    assert not trunk_learns(model.image)
    assert trunk_learns(model.text)


def test_a_head_that_pools_is_not_cut() -> None:
    class TimmModel(torch.nn.Module):  # as open_clip's with an attention pool
        def __init__(self) -> None:
            super().__init__()
            self.trunk = torch.nn.Conv2d(3, 4, 2)
            self.trunk.get_classifier = torch.nn.Identity  # type: ignore[assignment]

    with pytest.raises(ModelError, match="begins before its pooling"):
        image_trunk(TimmModel(), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("pool", ["argmax", "eos", "first", "last"])
def test_the_last_block_of_one_position_learns_what_the_whole_one_does(pool: str) -> None:
    """In training, against open_clip's own forward, in float64: outputs and all gradients."""
    model = tiny.build(tiny.arch_section("tiny-vit")).double()
    model.text.pool_type = pool
    images, tokens = tiny.pictures(model).double(), tiny.tokens(model)
    if pool == "eos":
        model.text.eos_id = int(tokens.max())
    found: dict[str, list[torch.Tensor]] = {}
    for way in ("whole", "pooled"):
        model.train(way == "pooled")
        model.zero_grad(set_to_none=True)
        image_bd = model.encode_image(images)
        text_bd = model.encode_text(tokens)
        (image_bd.square().sum() + text_bd.pow(3).sum()).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found[way] = [image_bd, text_bd, *gradients]
    assert len(found["whole"]) == len(found["pooled"]) > 40
    for one, other in zip(found["whole"], found["pooled"], strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-12)
    assert any(not torch.equal(*pair) for pair in zip(*found.values(), strict=True)), "another way"
