"""Operations of training, against products counted by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ptft.compare.count import counter


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("input_learns", [False, True])
def test_gradients_of_convolutions(groups: int, input_learns: bool) -> None:
    """Two for each multiplication and addition: output size x weights of an output channel."""
    layer = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=groups, bias=False)
    x = torch.randn(2, 6, 8, 8, requires_grad=input_learns)
    with counter() as counted:
        layer(x).sum().backward()
    products = 2 * 12 * 4 * 4 * (6 // groups) * 3 * 3
    assert counted.get_total_flops() == 2 * products * (3 if input_learns else 2)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 8, 3), nn.ConvTranspose2d(4, 8, 3), nn.Conv1d(4, 8, 5, padding=2)]
)
def test_with_one_group_the_count_is_torchs(layer: nn.Module) -> None:
    shape = (2, 4, 9) if isinstance(layer, nn.Conv1d) else (2, 4, 9, 9)
    counts = []
    for mode in (counter(), FlopCounterMode(display=False)):
        with mode:
            layer(torch.randn(shape, requires_grad=True)).sum().backward()
        counts.append(mode.get_total_flops())
    assert counts[0] == counts[1] > 0
