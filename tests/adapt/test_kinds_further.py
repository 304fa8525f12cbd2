"""Adapters on convolutions, and models with adapters or heads that are tuned further or refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ptft.errors import AdaptError, ModelError
from ptft.model import (
    DualEncoder,
    apply_adapt,
    check_trains,
    init_head,
    load_adapter,
    load_model,
    merge,
    save_adapter,
    save_model,
)
from ptft.recipe import (
    BottleneckAdapt,
    ClassifyObjective,
    ClipObjective,
    DoraAdapt,
    FullAdapt,
    Ia3Adapt,
    LoraAdapt,
    PrefixAdapt,
    ProjectionAdapt,
)
from ptft.recipe.adapt import Adapter
from tests.support import tiny
from tests.support.adapting import assert_same, outputs, step_of, train

CONVOLUTIONS = {
    "resnet": tiny.arch_section("tiny-resnet"),
    "convnext": tiny.arch_section("tiny-convnext"),
    "efficientnet": tiny.towers_section(),
    "mobilenet, padded as TensorFlow does": tiny.towers_section(
        image="mobilenetv2_035", image_args={"pad_type": "same"}
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_convolutional_towers_are_adapted_on_their_convolutions(kind: str, name: str) -> None:
    adapt: Any = {"lora": LoraAdapt(rank=2), "dora": DoraAdapt(rank=2), "ia3": Ia3Adapt()}[kind]
    adapt = adapt.model_copy(update={"towers": ["image"]})
    model = tiny.build(CONVOLUTIONS[name])
    for part in model.image.modules():  # at random ones, open_clip closes each residual branch
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
    plain = {n: t.clone() for n, t in model.state_dict().items()}
    apply_adapt(model, adapt, ClipObjective(), seed=0)
    check_trains(model, step_of(model, ClipObjective()), scale_learns=True)
    train(model, ClipObjective())
    trained = outputs(model)
    assert_same(outputs(merge(model)), trained)
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, plain[n])}
    assert any(model.get_parameter(n).ndim == 4 for n in moved - {"logit_scale"})
    assert not [n for n in moved if "running" in n or n.startswith("text.")]


def test_a_classifier_comes_back_with_its_head(tmp_path: Path) -> None:
    objective = ClassifyObjective()

    def plain() -> DualEncoder:
        return tiny.build(tiny.arch_section(), objective)

    model = plain()
    init_head(model, ["cat", "dog"], objective, seed=0)
    apply_adapt(model, BottleneckAdapt(width=2), objective)
    train(model, objective)
    save_adapter(model, tmp_path)
    again = load_adapter(plain(), tmp_path)
    assert again.spec.classes == ("cat", "dog")
    images = tiny.pictures(model)
    with torch.no_grad():
        torch.testing.assert_close(again.classify(images), model.classify(images))


def test_a_model_with_parts_of_its_own_is_tuned_further(tmp_path: Path) -> None:
    model = tiny.build(tiny.arch_section())
    apply_adapt(model, PrefixAdapt(length=2), ClipObjective())
    save_model(model, tmp_path)
    model = load_model(tmp_path)
    for kind in (LoraAdapt(), PrefixAdapt()):
        with pytest.raises(AdaptError, match=f"'{kind.kind}': the model .* carries a prefix"):
            apply_adapt(model, kind, ClipObjective())
    apply_adapt(model, FullAdapt(), ClipObjective())
    check_trains(model, step_of(model, ClipObjective()), scale_learns=True)
    copied = copy.deepcopy(model)
    nn.init.normal_(copied.image.transformer.resblocks[0].prefix.tokens)
    expected = outputs(model)
    assert not torch.allclose(outputs(copied)[0], expected[0], atol=1e-4), "a copy has its own"
    assert_same(outputs(model), expected)


REFUSED: list[tuple[Any, Adapter, str]] = [
    (
        tiny.towers_section(),
        LoraAdapt(targets=["q"]),
        r"adapt.targets: q: .* image tower; .*: conv",
    ),
    (tiny.towers_section(), PrefixAdapt(), r"'prefix': the image tower takes none: it has no"),
    (
        tiny.towers_section(),
        BottleneckAdapt(),
        r"adapt.after: attention, mlp: .* image .*: nothing",
    ),
    (
        tiny.towers_section(image_projection="none", embed_dim=256),
        ProjectionAdapt(),
        r"'projection': the image tower has none",
    ),
    (
        tiny.towers_section(image="mobilenetv2_035", image_args={"pad_type": "same"}),
        DoraAdapt(dropout=0.1),
        r"adapt.dropout: 0.1 with kind dora: .* pads as TensorFlow",
    ),
]


@pytest.mark.parametrize(("section", "adapt", "message"), REFUSED, ids=lambda v: str(v)[:12])
def test_what_a_tower_has_no_place_for_is_refused(
    section: Any, adapt: Adapter, message: str
) -> None:
    model = tiny.build(section)
    with pytest.raises(ModelError, match=message):
        apply_adapt(model, adapt, ClipObjective())
