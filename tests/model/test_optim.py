"""Groups, optimisers, schedule and length of training."""

import copy
import functools
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ptft.compat import import_timm
from ptft.errors import RecipeError, TrainingError
from ptft.optim import (
    Lbfgs,
    build_optimizer,
    learning_rate_factor,
    parameter_names,
    total_samples,
)
from ptft.recipe import OptimSection
from ptft.recipe.optim import timm_optimizers


class _Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.text = nn.Embedding(5, 4)
        self.text.positional_embedding = nn.Parameter(torch.zeros(7, 4))
        self.logit_scale = nn.Parameter(torch.zeros(1))


def test_what_decays_and_each_towers_rate() -> None:
    section = OptimSection(epochs=1, lr=1e-3, lr_image=1e-4, weight_decay=0.3)
    optimizer = build_optimizer(_Towers(), section)
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name in group["names"]
    }
    assert found == {
        "image.0.weight": (1e-4, 0.3),
        "image.0.bias": (1e-4, 0.0),
        "image.1.weight": (1e-4, 0.0),
        "image.1.bias": (1e-4, 0.0),
        "text.weight": (1e-3, 0.3),
        "text.positional_embedding": (1e-3, 0.0),
        "logit_scale": (1e-3, 0.0),
    }
    assert sorted(parameter_names(optimizer)) == sorted(found)


def test_nothing_to_learn_is_an_error() -> None:
    model = _Towers().requires_grad_(False)
    with pytest.raises(TrainingError, match="nothing is left to learn"):
        build_optimizer(model, OptimSection(epochs=1))


def test_cosine_rises_then_falls_to_almost_nothing() -> None:
    section = OptimSection(samples_seen=1000, global_batch=10, warmup=0.1)
    factors = [learning_rate_factor(section, seen, 1000) for seen in range(0, 1000, 10)]
    assert factors[0] == pytest.approx(0.1)  # 10 of 100 warm-up samples
    assert factors[9] == pytest.approx(1.0)
    assert max(factors) <= 1.0
    assert all(a >= b for a, b in itertools.pairwise(factors[9:]))
    middle = learning_rate_factor(section, 550, 1000)  # half-way down
    assert middle == pytest.approx(0.5)
    assert 0.0 < factors[-1] < 0.001
    expected = 0.5 * (1 + math.cos(math.pi * (990 - 100) / 900))
    assert factors[-1] == pytest.approx(expected)


def test_constant_stays_after_warm_up() -> None:
    section = OptimSection(samples_seen=100, global_batch=10, warmup=0.2, schedule="constant")
    factors = [learning_rate_factor(section, seen, 100) for seen in range(0, 100, 10)]
    assert factors == [0.5, *[1.0] * 9]


def test_length_is_whole_steps() -> None:
    assert total_samples(OptimSection(samples_seen=100, global_batch=32), 999) == 128
    assert total_samples(OptimSection(epochs=1.5, global_batch=32), 100) == 160


def test_a_constant_rate_falls_in_a_line_over_its_cooldown() -> None:
    section = OptimSection(
        samples_seen=1000,
        global_batch=10,
        warmup=0.1,
        schedule="constant",
        cooldown=0.25,
        final_lr=0.2,
    )
    at = {seen: learning_rate_factor(section, seen, 1000) for seen in range(0, 1000, 10)}
    assert at[0] == pytest.approx(0.1)
    assert all(at[seen] == 1.0 for seen in range(90, 760, 10))
    assert at[800] == pytest.approx(1 - 0.8 * 0.2)
    assert at[990] == pytest.approx(1 - 0.8 * 0.96)
    assert learning_rate_factor(section, 1000, 1000) == pytest.approx(0.2)


def test_wsd_is_stable_and_then_falls_as_one_minus_root() -> None:
    section = OptimSection(samples_seen=1000, global_batch=10, warmup=0.1, schedule="wsd")
    at = {seen: learning_rate_factor(section, seen, 1000) for seen in range(0, 1000, 10)}
    assert all(at[seen] == 1.0 for seen in range(90, 810, 10))
    assert at[850] == pytest.approx(1 - math.sqrt(0.25))
    assert at[990] == pytest.approx(1 - math.sqrt(0.95))
    assert learning_rate_factor(section, 1000, 1000) == 0.0


def test_a_cosine_falls_to_the_final_rate() -> None:
    section = OptimSection(samples_seen=1000, global_batch=10, warmup=0.0, final_lr=0.1)
    assert learning_rate_factor(section, 500, 1000) == pytest.approx(0.55)
    assert learning_rate_factor(section, 1000, 1000) == pytest.approx(0.1)


_SEARCH: dict[str, Any] = {
    "optimizer": "lbfgs",
    "weight_decay": 0.0,
    "clip_grad_norm": None,
    "precision": "fp32",
    "epochs": 1,
}


def _logistic(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(x @ weight.T, y) + 0.01 * weight.square().sum()


def _newton(x: Tensor, y: Tensor) -> Tensor:
    """The minimum in float64, by Newton's steps."""
    weight = torch.zeros(3, 5, dtype=torch.float64)
    loss = functools.partial(_logistic, x=x.double(), y=y)
    for _ in range(20):
        gradient = torch.autograd.functional.jacobian(loss, weight)
        hessian = torch.autograd.functional.hessian(loss, weight)
        step = torch.linalg.solve(hessian.reshape(15, 15), gradient.reshape(15))
        weight = weight - step.reshape(3, 5)
    assert gradient.abs().max() < 1e-12
    return weight


@pytest.mark.parametrize("lr", [1e-5, 1e-2, 10.0])
def test_lbfgs_comes_to_the_minimum_whatever_the_rate(lr: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator), torch.arange(60) % 3
    torch.manual_seed(0)
    layer = nn.Linear(5, 3, bias=False)
    optimizer = build_optimizer(layer, OptimSection(**_SEARCH, lr=lr))
    assert isinstance(optimizer, Lbfgs)

    def evaluate() -> float:
        optimizer.zero_grad()
        loss = _logistic(layer.weight, x, y)
        loss.backward()
        return loss.item()

    for _ in range(30):
        optimizer.search(evaluate(), evaluate)
    assert optimizer.param_groups[0]["lr"] == lr
    # where a loss in float32 is flat, its search ends
    torch.testing.assert_close(layer.weight.detach().double(), _newton(x, y), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eps": 1e-6}, "optim.eps: not an argument of lbfgs; allowed: null"),
        ({"optimizer_args": {"history_size": 3}}, "history_size: lbfgs has none to set"),
    ],
)
def test_lbfgs_has_no_more_keys(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_optimizer(nn.Linear(2, 2), OptimSection(**_SEARCH, **given))


# --- optimisers -----------------------------------------------------------------------------------


class _Small(nn.Module):
    """A parameter of each kind that optimisers treat in their own ways."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator))

        self.image = nn.Module()
        self.image.conv = drawn(20, 3, 4, 4)
        self.image.weight = drawn(24, 20)
        self.image.bias = drawn(24)
        self.text = nn.Embedding(30, 24)
        self.text.weight = drawn(30, 24)
        self.head = nn.Linear(24, 5)
        self.head.weight = drawn(5, 24)
        self.logit_scale = drawn(1)

    def set_gradients(self, step: int) -> None:
        generator = torch.Generator().manual_seed(1000 + step)
        for parameter in self.parameters():
            parameter.grad = torch.randn(
                parameter.shape, generator=generator, dtype=parameter.dtype
            )


def _learn(model: _Small, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        model.set_gradients(step)
        optimizer.step()


def _difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def test_lion_is_the_papers_in_float64() -> None:
    section = OptimSection(
        epochs=1, optimizer="lion", lr=0.01, lr_image=0.003, weight_decay=0.1, betas=(0.8, 0.95)
    )
    model = _Small().double()
    names = [name for name, _ in model.named_parameters()]
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    momentum = {name: torch.zeros_like(p) for name, p in weights.items()}
    optimizer = build_optimizer(model, section)
    for step in range(4):
        model.set_gradients(step)
        gradients = {name: p.grad for name, p in model.named_parameters()}
        optimizer.step()
        for name in names:  # Chen et al. 2023, algorithm 2
            lr = 0.003 if name.startswith("image") else 0.01
            decay = 0.1 if weights[name].ndim > 1 else 0.0
            update = (0.8 * momentum[name] + 0.2 * gradients[name]).sign()
            weights[name] -= lr * (update + decay * weights[name])
            momentum[name] = 0.95 * momentum[name] + 0.05 * gradients[name]
    found = dict(model.named_parameters())
    assert max((found[name] - weights[name]).abs().max().item() for name in names) < 1e-12


def test_muon_is_timms_with_embeddings_and_head_left_to_adamw() -> None:
    import_timm()
    from timm.optim import Muon

    model = _Small()
    by_hand = copy.deepcopy(model)
    section = OptimSection(
        epochs=1, optimizer="muon", lr=0.02, weight_decay=0.1, optimizer_args={"momentum": 0.95}
    )
    matrices = [by_hand.image.conv, by_hand.image.weight]
    tables = [by_hand.text.weight, by_hand.head.weight]
    vectors = [by_hand.image.bias, by_hand.head.bias, by_hand.logit_scale]
    theirs = Muon(
        [
            {"params": matrices, "weight_decay": 0.1},
            {"params": tables, "weight_decay": 0.1, "use_fallback": True},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=0.02,
        momentum=0.95,
    )
    ours = build_optimizer(model, section)
    for step in range(3):
        model.set_gradients(step)
        ours.step()
        by_hand.set_gradients(step)
        theirs.step()
    assert _difference(model, by_hand) == 0.0
    assert {"exp_avg", "exp_avg_sq"} < set(ours.state[model.text.weight])


def test_a_decay_that_follows_the_schedule_does_so_from_each_groups_own_rate() -> None:
    section = OptimSection(epochs=1, optimizer="lionc", lr=0.01, lr_image=0.001)
    optimizer = build_optimizer(_Small(), section)
    for group in optimizer.param_groups:
        assert group["max_lr_snapshot"] == group["base_lr"]


USABLE = [name for name, one in timm_optimizers().items() if one.refused is None]


@pytest.mark.parametrize("name", USABLE)
def test_every_optimiser_that_is_allowed_steps(name: str) -> None:
    model = _Small()
    before = copy.deepcopy(model)
    optimizer = build_optimizer(model, OptimSection(epochs=1, optimizer=name, lr=0.01))
    _learn(model, optimizer, range(2))
    assert _difference(model, before) > 0.0
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer": "lyon"}, "optim.optimizer: 'lyon': not one of timm's; did you mean 'lion'"),
        (
            {"optimizer": "sgd", "optimizer_args": {"momentun": 0.9}},
            "optim.optimizer_args.momentun: sgd takes no such argument; did you mean 'momentum'?",
        ),
        (
            {"optimizer": "muon", "optimizer_args": {"conv_mode": "flat"}},
            "optim.optimizer: 'muon' with {'conv_mode': 'flat'}: Invalid conv_mode: flat",
        ),
    ],
)
def test_what_an_optimiser_does_not_take_is_told(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_optimizer(_Small(), OptimSection(epochs=1, **changes))
    assert str(caught.value).startswith(expected)
