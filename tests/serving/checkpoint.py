"""A tiny model with random weights for the tests of the service."""

import torch

from ptft.model import DualEncoder
from tests.support import tiny

CLASSES = ("cat", "dog", "red circle")


def make_model() -> DualEncoder:
    """A native CLIP with a head of random rows: a classifier, which embeds as well."""
    model = tiny.build(tiny.arch_section("tiny-vit"), seed=3)
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(len(CLASSES), model.spec.embed_dim, generator=generator)
    model.set_head(rows / rows.norm(dim=-1, keepdim=True), CLASSES, ["a {}", "{}!"])
    assert model.head is not None
    with torch.no_grad():
        model.head.bias.copy_(torch.randn(len(CLASSES), generator=generator))
    return model.eval()
