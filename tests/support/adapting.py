"""A small adapted model in training: its batch, steps as a run takes them, and what it gives."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ptft.model import DualEncoder
from ptft.optim import build_optimizer
from ptft.recipe import OptimSection
from tests.support import tiny
from tests.support.plain_step import TrainBatch, compute_objective

__all__ = ["TEXTS", "assert_same", "batch", "outputs", "step_of", "train"]

TEXTS = ["a red circle", "a photo of a cat", "", "a"]


def batch(model: DualEncoder) -> TrainBatch:
    labels = torch.arange(4) % 2
    return TrainBatch(tiny.pictures(model, 4), tiny.tokens(model, TEXTS), torch.arange(4), labels)


def step_of(model: DualEncoder, objective: Any) -> Callable[[], None]:
    return lambda: compute_objective(objective, model, batch(model)).loss.backward()


def train(model: DualEncoder, objective: Any, steps: int = 2) -> None:
    """A few large steps, with the optimiser of a run."""
    section = OptimSection(lr=0.05, samples_seen=1)
    optimizer = build_optimizer(model, section)
    inputs = batch(model)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        compute_objective(objective, model, inputs).loss.backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def outputs(model: DualEncoder) -> list[Tensor]:
    tokens = model.spec.tokenizer.trim(tiny.tokens(model, TEXTS).numpy())
    rows = model.eval()(tiny.pictures(model, 4), torch.from_numpy(tokens))
    return [row for row in rows if row is not None]


def assert_same(found: list[Tensor], expected: list[Tensor], atol: float = 1e-5) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=0)
