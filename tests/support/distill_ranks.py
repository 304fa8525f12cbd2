"""One of two ranks that take a distillation loss; on its own, so that a process starts quickly."""

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.distill import Pairs, contrast_distillation, feature_distance
from ptft.distributed import join_world

PAIRS = 10


def made(seed: int, width: int = 6, *, rows: slice = slice(None)) -> Pairs:
    """Leaves in float64."""
    generator = torch.Generator().manual_seed(seed)

    def rows_of(count: int) -> Tensor:
        drawn = torch.randn(count, width, generator=generator, dtype=torch.float64)
        return F.normalize(drawn, dim=-1)

    scale = torch.tensor([5.0 + seed], dtype=torch.float64)
    whole = rows_of(PAIRS), rows_of(PAIRS)
    return Pairs(*(one[rows].clone().requires_grad_() for one in whole), scale.requires_grad_())


def gradients(loss: Tensor, pairs: Pairs) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [pairs.image_bd, pairs.text_bd, pairs.scale]))


def answer(rank: int, port: int, answers: Any) -> None:
    environment = {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    os.environ.update(environment)
    torch.set_num_threads(1)
    half = slice(rank * PAIRS // 2, (rank + 1) * PAIRS // 2)
    with join_world("cpu", lost_after=60, environment=environment) as world:
        student, teacher = made(1, rows=half), made(2, rows=half)
        loss = contrast_distillation(student, teacher, world=world)
        loss = loss + feature_distance(student, teacher, world)
        answers.put((rank, loss.item(), [g.tolist() for g in gradients(loss, student)]))
        world.barrier()
