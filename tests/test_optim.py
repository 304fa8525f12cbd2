"""Groups, schedule and length of training."""

import itertools
import math

import pytest
import torch
from torch import nn

from ptft.errors import TrainingError
from ptft.optim import build_optimizer, learning_rate_factor, parameter_names, total_samples
from ptft.recipe import OptimSection


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
