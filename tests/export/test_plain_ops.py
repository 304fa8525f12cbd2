"""Graphs of few nodes: the same numbers as torch's own functions, in forms that are fused."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ptft.export.graph import PlainOps, Tower, write_graph
from ptft.model.trunk import as_exported
from tests.support import tiny


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("pool", ["argmax", "eos", "first", "last"])
@pytest.mark.parametrize("scaled", [False, True])
def test_towers_are_the_same_in_few_nodes(pool: str, scaled: bool) -> None:
    """In float64: every block on rows, its last at one position; attention written out."""
    model = tiny.build(tiny.arch_section("tiny-vit")).double().eval()
    model.text.pool_type = pool
    images, tokens = tiny.pictures(model).double(), tiny.tokens(model)
    if pool == "eos":
        model.text.eos_id = int(tokens.max())
    for tower in (model.image, model.text):
        for block in tower.transformer.resblocks:
            nn.init.normal_(block.attn.in_proj_bias)
            if scaled:
                block.ls_1 = block.ls_2 = nn.Linear(block.attn.embed_dim, block.attn.embed_dim)
    model.double()
    length = int(tokens.ne(0).sum(dim=1).max())
    with torch.no_grad():
        expected = [model.encode_image(images), model.encode_text(tokens)]
        if model.spec.text_trimmable and pool in ("argmax", "eos"):
            expected.append(expected[1])  # of rows that are cut to the longest text
        with as_exported(), PlainOps():
            found = [model.encode_image(images), model.encode_text(tokens)]
            found += [model.encode_text(tokens[:, :length])] * (len(expected) - 2)
    for one, other in zip(found, expected, strict=True):
        close(one, other)
        assert not torch.equal(one, other), "another way"


@pytest.mark.parametrize("mask", ["none", "float", "bool", "causal"])
def test_attention_is_torchs(mask: str) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, rows, 8, dtype=torch.float64) for rows in (5, 6, 6))
    more = {
        "none": {},
        "float": {"attn_mask": torch.randn(5, 6, dtype=torch.float64), "scale": 0.3},
        "bool": {"attn_mask": torch.rand(2, 1, 5, 6) > 0.3},
        "causal": {"is_causal": True},
    }[mask]
    expected = F.scaled_dot_product_attention(query, key, value, **more)  # type: ignore[arg-type]
    with PlainOps():
        found = F.scaled_dot_product_attention(query, key, value, **more)  # type: ignore[arg-type]
    close(found, expected)


@pytest.mark.parametrize(
    ("size", "settings", "cut"),
    [
        ((12, 8), {"kernel_size": (4, 2), "stride": (4, 2)}, True),
        ((12, 8), {"kernel_size": 4, "stride": 4, "bias": False}, True),
        ((13, 8), {"kernel_size": 4, "stride": 4}, False),  # a row is left over
        ((12, 8), {"kernel_size": 4, "stride": 2}, False),
        ((12, 8), {"kernel_size": 4, "stride": 4, "padding": 2}, False),
        ((12, 8), {"kernel_size": 1}, False),
    ],
)
def test_patches_are_a_product(
    size: tuple[int, int], settings: dict[str, object], cut: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, **settings).double()  # type: ignore[arg-type]
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = layer(images)
    with PlainOps():
        found = layer(images)
    close(found, expected)
    assert found.grad_fn is not None
    assert ("Convolution" in found.grad_fn.name()) is not cut


class Block(nn.Module):
    """(B, 3, 8, 8) -> (B, 4): patches, attention and a GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, stride=4)
        self.out = nn.Linear(8, 4)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        rows = F.gelu(self.cut(pixel_values).flatten(2).transpose(1, 2)).unsqueeze(1)
        return self.out(F.scaled_dot_product_attention(rows, rows, rows).mean(dim=(1, 2)))


def test_the_graph_is_small_and_onnxruntime_fuses_it(tmp_path: Path) -> None:
    module = Block().eval()
    example = torch.randn(2, 3, 8, 8)
    plain = tmp_path / "plain.onnx"
    write_graph(Tower(module, "pixel_values", "embeds", example, {0: ("batch", None)}), plain)
    kinds = Counter(node.op_type for node in onnx.load(plain).graph.node)
    assert "Conv" not in kinds and kinds["Slice"] == 0 and kinds["Softmax"] == 1
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    session = onnxruntime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
    fused = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    assert fused["Gelu"] + fused["BiasGelu"] == 1 and fused["FusedMatMul"] == 1
    (found,) = session.run(None, {"pixel_values": example.numpy()})
    np.testing.assert_allclose(found, module(example).detach().numpy(), atol=1e-6)


def test_a_tower_s_graph_has_two_dozen_nodes_a_block(classifier_folder: Path) -> None:
    blocks = 2  # of a tiny-vit
    for name in ("vision", "text"):
        nodes = onnx.load(classifier_folder / "onnx" / f"{name}_model.onnx").graph.node
        assert len(nodes) <= 40 + 25 * blocks, Counter(node.op_type for node in nodes)
