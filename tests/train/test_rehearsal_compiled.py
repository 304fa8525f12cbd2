"""What the compiler would stop at on a GPU is found without one.

Every kind of block: ``python -m tests.bench rehearse``.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from ptft.train.device import compile_blocks
from tests.support.rehearsal_compiled import COMPILED, compiled, rehearse_compiled
from tests.support.steps import learner, recipe

pytestmark = [  # what torch's compiler says about itself
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated"),
]
CASE = "texts with padding"


def _asked(plain: nn.Module) -> Callable[..., Any]:
    forward = plain.forward

    def asking(*given: Any, **options: Any) -> Any:
        found = forward(*given, **options)
        return found * found.sum().item()

    return asking


def _decided(plain: nn.Module) -> Callable[..., Any]:
    forward = plain.forward

    def deciding(*given: Any, **options: Any) -> Any:
        found = forward(*given, **options)
        return found if found.sum() > 0 else -found

    return deciding


def _elsewhere(plain: nn.Module) -> Callable[..., Any]:
    forward = plain.forward

    def meeting(*given: Any, **options: Any) -> Any:
        found = forward(*given, **options)
        return found + torch.ones(found.shape[-1])

    return meeting


def _planted(plant: Callable[[nn.Module], Callable[..., Any]]) -> Any:
    arch, changes = COMPILED[CASE]
    model = learner(recipe(**changes), arch, double=False)
    for block in model.text.transformer.resblocks:
        block.mlp.forward = plant(block.mlp)
    return model


def test_blocks_are_one_graph_each_way() -> None:
    found = rehearse_compiled(CASE)
    assert (found.graphs, found.breaks) == (4, []), (
        "two towers, with a graph to go back and without"
    )


@pytest.mark.parametrize("plant", [_asked, _decided])
def test_what_asks_the_device_for_a_number_is_found(plant: Any) -> None:
    assert compiled(_planted(plant)).breaks


def test_a_tensor_that_lies_elsewhere_is_an_error() -> None:
    with pytest.raises(Exception, match="at least two devices, meta and cpu"):
        compiled(_planted(_elsewhere))


def test_a_tower_with_dora_is_left_as_it_is() -> None:
    """The compiler would stop at each of its layers."""
    dora = {"kind": "dora", "rank": 2, "dropout": 0.0, "towers": ["text"]}
    model = learner(recipe(adapt=dora), double=False)
    told = compile_blocks(model, backend="eager")
    assert told == "compiled: 2 blocks of the image tower; DoRA's layers are left as they are"
    torch._dynamo.reset()
    counters.clear()
    block = model.text.transformer.resblocks[0]
    block.compile(backend="eager")
    block(torch.ones(1, 3, 32))
    assert counters["graph_break"], "else it could be compiled"
