"""Attention taken apart computes what it did, and put together it is what it was."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ptft.compat import import_open_clip, import_timm
from ptft.errors import AdaptError
from ptft.export.graph import write_graph
from ptft.export.parity import run_apart
from ptft.export.towers import text_tower
from ptft.model.adapt import fuse_attention, split_attention
from ptft.model.adapt.sites import find_sites
from ptft.model.adapt.split import SplitAttention
from tests.support import tiny

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
L, W, H = 7, 12, 3


def mask(kind: str | None) -> torch.Tensor | None:
    causal = torch.full((L, L), -torch.inf).triu(1)
    if kind == "per head":
        generator = torch.Generator().manual_seed(1)
        return causal + torch.randn(2 * H, L, L, generator=generator)
    return {None: None, "causal": causal, "boolean": causal.isinf()}[kind]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [None, "causal", "boolean", "per head"])
def test_split_attention_is_multi_head_attention(
    dtype: torch.dtype, bias: bool, kind: str | None
) -> None:
    torch.manual_seed(0)
    fused = nn.MultiheadAttention(W, H, bias=bias, batch_first=True, dtype=dtype)
    if bias:
        nn.init.normal_(fused.in_proj_bias)
        nn.init.normal_(fused.out_proj.bias)
    split = SplitAttention(fused)
    x = torch.randn(2, L, W, dtype=dtype)
    added = mask(kind)
    if added is not None and added.dtype != torch.bool:
        added = added.to(dtype)
    expected = fused(x, x, x, need_weights=False, attn_mask=added)[0]
    found, weights = split(x, x, x, need_weights=False, attn_mask=added)
    assert weights is None
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=0)
    again = split.fused()
    assert set(again.state_dict()) == set(fused.state_dict())
    for name, tensor in fused.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def timm_tower(name: str, **values: Any) -> nn.Module:
    import_open_clip()
    from open_clip.timm_model import TimmModel

    timm = import_timm()
    tower = TimmModel("test_vit", embed_dim=16, image_size=32)
    tower.trunk = timm.create_model(name, num_classes=0, **values)
    tower.head = nn.Identity()
    for parameter in tower.parameters():  # zeros would hide a part that is lost
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.5)
    return tower.eval()


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
FUSED = {
    "vit": ("vit_tiny_patch16_224", SMALL),
    "vit without bias": ("vit_tiny_patch16_224", {**SMALL, "qkv_bias": False}),
    "eva": ("eva02_tiny_patch14_224", SMALL),
    "eva, separate bias": ("eva02_tiny_patch14_224", {**SMALL, "qkv_fused": False}),
    "rope": ("vit_pe_core_tiny_patch16_384", SMALL),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2)},
    ),
    "relpos": ("vit_relpos_small_patch16_224", SMALL),
}


@torch.no_grad()
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", FUSED)
def test_split_timm_towers_compute_the_same_and_fuse_to_the_same(
    kind: str, dtype: torch.dtype
) -> None:
    name, values = FUSED[kind]
    torch.manual_seed(0)
    tower = timm_tower(name, **values).to(dtype)
    sites = find_sites(tower)
    images = torch.randn(2, 3, 32, 32, dtype=dtype)
    expected, before = tower(images), copy.deepcopy(tower.state_dict())
    rng = torch.get_rng_state()
    for path in sites.fused:
        split_attention(tower, path)
    for role in ("q", "k", "v", "out"):
        for path in sites.layers[role]:
            assert isinstance(tower.get_submodule(path), nn.Linear), path
    torch.testing.assert_close(tower(images), expected, atol=TOLERANCE[dtype], rtol=0)
    fuse_attention(tower)
    assert torch.equal(torch.get_rng_state(), rng), "nothing is drawn"
    assert set(tower.state_dict()) == set(before)
    for key, tensor in before.items():
        assert torch.equal(tower.state_dict()[key], tensor), key
    assert torch.equal(tower(images), expected)


def test_a_bias_that_the_fused_layer_reads_past_is_not_split() -> None:
    """BEiT takes the weight of its layer without calling it: an adapter there would be dead."""
    tower = timm_tower("beit_base_patch16_224", **SMALL)
    assert set(find_sites(tower).layers) == {"fc1", "fc2", "conv"}


def test_open_clip_attention_of_another_make_is_refused() -> None:
    import_open_clip()
    from open_clip.transformer import TextTransformer

    tower = TextTransformer(
        context_length=8, vocab_size=9, width=8, heads=2, layers=1, qk_norm=True
    )
    with pytest.raises(AdaptError, match=r"resblocks.0.attn: open_clip's Attention"):
        find_sites(tower)


@torch.no_grad()
def test_split_text_tower_takes_any_length_and_exports_with_it(tmp_path: Path) -> None:
    model = tiny.build(tiny.arch_section())
    model.text.transformer.resblocks = model.text.transformer.resblocks[:1]  # exports sooner
    tokens = tiny.tokens(model)
    expected = {n: model.encode_text(tokens[:, :n]).numpy() for n in (7, 16)}
    split_attention(model.text, "transformer.resblocks.0.attn")
    write_graph(text_tower(model), tmp_path / "text.onnx")
    batches = {str(n): tokens[:, :n].numpy() for n in expected}
    found = run_apart(tmp_path / "text.onnx", batches)
    for length, rows in expected.items():
        split = model.encode_text(tokens[:, :length]).numpy()
        np.testing.assert_allclose(split, rows, atol=1e-6, rtol=0)
        np.testing.assert_allclose(found[str(length)], rows, atol=1e-5, rtol=0)
