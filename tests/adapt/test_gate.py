"""The integrity gate sees what does not learn, and leaves no trace."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ptft.errors import AdaptError
from ptft.model import DualEncoder, apply_adapt, check_trains
from ptft.recipe import (
    ClipObjective,
    DoraAdapt,
    FullAdapt,
    LoraAdapt,
    PrefixAdapt,
    ProbeAdapt,
)
from tests.support import tiny
from tests.support.plain_step import TrainBatch, compute_objective


def step_of(model: DualEncoder) -> Callable[[], None]:
    texts = ["a red circle", "a cat", "a dog", "the sea"]
    inputs = TrainBatch(tiny.pictures(model, 4), tiny.tokens(model, texts), torch.arange(4), None)
    return lambda: compute_objective(ClipObjective(), model, inputs).loss.backward()


def adapted(adapt: object = None, name: str = "tiny-vit") -> DualEncoder:
    model = tiny.build(tiny.arch_section(name))
    apply_adapt(model, adapt or LoraAdapt(), ClipObjective())  # type: ignore[arg-type]
    return model.train()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("adapt", [FullAdapt(), DoraAdapt(dropout=0.3, towers=["text"])])
def test_nothing_is_left_changed(adapt: object, fails: bool) -> None:
    model = adapted(adapt, "tiny-resnet")
    if fails:
        model.spare = nn.Parameter(torch.ones(2))
    torch.manual_seed(5)
    rng = torch.get_rng_state()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    modes = {n: part.training for n, part in model.named_modules()}
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    if fails:
        with pytest.raises(AdaptError, match=r"no gradient reaches it: spare$"):
            check_trains(model, step_of(model), scale_learns=True)
    else:
        check_trains(model, step_of(model), scale_learns=True)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert {n: part.training for n, part in model.named_modules()} == modes
    assert {n for n, p in model.named_parameters() if p.requires_grad} == learning
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_peft_as_it_comes_leaves_adapters_without_a_gradient() -> None:
    """Its output projections inside fused attention: the case that this gate is for."""
    from peft import LoraConfig, inject_adapter_in_model

    model = tiny.build(tiny.arch_section())
    inject_adapter_in_model(LoraConfig(target_modules="all-linear"), model.image)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or name == "logit_scale")
    with pytest.raises(AdaptError, match=r"no gradient .*attn.*out_proj.*lora_A"):
        check_trains(model, step_of(model), scale_learns=True)


def test_a_frozen_zero_behind_an_adapter_is_found() -> None:
    """open_clip's ResNets start with each residual branch at zero; frozen, nothing in it learns."""
    model = adapted(LoraAdapt(towers=["image"]), "tiny-resnet")
    with pytest.raises(AdaptError, match=r"all zero: image.layer1.0.conv1.lora_A.default.weight"):
        check_trains(model, step_of(model), scale_learns=True)


def test_zeros_that_are_due_pass() -> None:
    """B = 0 in LoRA, up = 0 in a bottleneck, the closed branches of a ResNet that learns whole."""
    for model in (adapted(), adapted(FullAdapt(), "tiny-resnet"), adapted(ProbeAdapt())):
        check_trains(model, step_of(model), scale_learns=True)


def test_a_tower_that_is_cut_off_is_found() -> None:
    """Its last norm gives the same for every text; the projection behind it still learns."""
    model = adapted(FullAdapt())
    last = model.text.ln_final.requires_grad_(False)
    nn.init.zeros_(last.weight)
    nn.init.normal_(last.bias)
    with pytest.raises(AdaptError, match="text tower learns, and all its gradients are zero"):
        check_trains(model, step_of(model), scale_learns=True)


def test_the_scale_does_as_it_is_told() -> None:
    model = adapted(LoraAdapt(logit_scale=False))
    check_trains(model, step_of(model), scale_learns=False)
    with pytest.raises(AdaptError, match="logit_scale is to learn, and does not"):
        check_trains(model, step_of(model), scale_learns=True)


def test_what_gets_a_gradient_unasked_is_found() -> None:
    model = adapted(LoraAdapt(towers=["text"]))
    model.image.proj.requires_grad_(True)
    model.image.proj.register_post_accumulate_grad_hook(lambda p: p.requires_grad_(False))
    with pytest.raises(AdaptError, match=r"said to stay, and gets a gradient: image\.proj$"):
        check_trains(model, step_of(model), scale_learns=True)


def test_a_loss_of_nothing_that_learns_is_found() -> None:
    model = adapted(LoraAdapt(logit_scale=False))
    with pytest.raises(AdaptError, match="does not depend on anything that learns"):
        check_trains(model, lambda: None, scale_learns=False)


def test_dropout_that_does_not_drop_is_found() -> None:
    model = adapted(LoraAdapt(dropout=0.25))
    check_trains(model, step_of(model), scale_learns=True)
    layer = model.text.transformer.resblocks[1].attn.v_proj
    layer.lora_dropout["default"] = nn.Identity()
    with pytest.raises(AdaptError, match=r"0.25: nothing is dropped in text.*resblocks.1.*v_proj$"):
        check_trains(model, step_of(model), scale_learns=True)

    locked = adapted(LoraAdapt(dropout=0.25))
    locked.lock(["image"])
    with pytest.raises(AdaptError, match=r"nothing is dropped in image\."):
        check_trains(locked, step_of(locked), scale_learns=True)

    dry = adapted(LoraAdapt())
    layer = dry.text.transformer.resblocks[0].attn.q_proj
    layer.lora_dropout["default"] = nn.Dropout(0.1)
    with pytest.raises(AdaptError, match=r"0.0: something is dropped in text.*0.attn.q_proj$"):
        check_trains(dry, step_of(dry), scale_learns=True)


def test_a_prefix_passes_on_both_towers() -> None:
    model = adapted(PrefixAdapt(length=2, depth="deep"))
    check_trains(model, step_of(model), scale_learns=True)
