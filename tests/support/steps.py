"""Batches and steps made by hand, in float64 too, for tests of gradients."""

from typing import Any

import torch

from ptft.data import Batch
from ptft.data.hashing import text_id
from ptft.model import DualEncoder, apply_adapt, build_model, init_head
from ptft.recipe import ClassifyObjective, Recipe
from ptft.recipe.load import parse_recipe
from tests.support.tiny import arch_section

CAPTIONS = (
    *("a cat", "a red circle left of a blue square", "two dogs", "a cat", "rain", "a red kite"),
    *("a small green star under a large yellow moon", "two dogs", "sea", "a", "old town", "a tree"),
)


def recipe(**changes: Any) -> Recipe:
    """A recipe of 12 samples a step; ``changes`` as ``objective__kind="siglip"``."""
    values: dict[str, Any] = {
        "name": "steps",
        "model": {"name": "ViT-B-32"},  # stands in: the tests build their own
        "data": {"kind": "scenes"},
        "objective": {"kind": "clip"},
        "adapt": {"kind": "full"},
        "optim": {"samples_seen": 120, "global_batch": 12, "precision": "fp32", "lr": 1e-3},
    }
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        place = values
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    return parse_recipe(values, where="test")


def learner(section: Recipe, arch: str = "tiny-vit", *, double: bool = True) -> DualEncoder:
    """A tiny model that is ready to learn by the recipe, in float64 unless told otherwise."""
    model = build_model(arch_section(arch), None, section.objective, seed=section.seed)
    if isinstance(section.objective, ClassifyObjective):
        init_head(model, ["cat", "dog", "sea"], section.objective, seed=section.seed)
    if double:
        widen(model)
    apply_adapt(model, section.adapt, section.objective)
    return model.train()


def widen(model: DualEncoder) -> None:
    """Run a model in float64, pictures and masks included."""
    model.double()
    plain = model.normalise
    model.normalise = lambda pixels: plain(pixels).double()  # type: ignore[method-assign]


def batch(model: DualEncoder, rows: slice = slice(None), *, seed: int = 0) -> Batch:
    """Rows of 12 pairs: noise and captions, of which two come twice."""
    generator = torch.Generator().manual_seed(seed)
    size = (len(CAPTIONS), *model.spec.preprocess.size, 3)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    captions = CAPTIONS[rows]
    return Batch(
        images=images[rows],
        tokens=torch.from_numpy(model.spec.tokenizer(captions)),
        caption_ids=torch.tensor([text_id(caption) for caption in captions]),
        labels=torch.arange(len(CAPTIONS))[rows] % 3,
        names=list(captions),
        skipped=[],
    )


def gradients(model: DualEncoder) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def largest_gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference of two sets of tensors of the same names."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)
