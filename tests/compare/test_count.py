"""Operations of training, against products counted by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ptft.compare.count import count_training, counter
from ptft.train.batches import batches
from ptft.train.setup import set_up
from tests.support.runs import BATCH, recipe


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


def test_micro_batches_run_forward_twice_but_for_the_last(tmp_path: Path) -> None:
    whole, _ = count_training(recipe(tmp_path))
    cut, _ = count_training(recipe(tmp_path, optim__micro_batch=BATCH // 4))
    section = recipe(tmp_path)
    setup = set_up(section, torch.device("cpu"))
    two = next(batches(section, setup, start=0, end=2, size=2, workers=0))
    forward = 0.0
    for row in range(2):  # as a micro batch of one is trimmed
        tokens = setup.model.spec.tokenizer.trim(two.tokens[row : row + 1].numpy())
        with torch.no_grad(), counter() as counted:
            setup.model.train()(
                setup.model.normalise(two.images[row : row + 1]), torch.from_numpy(tokens)
            )
        forward += counted.get_total_flops() / 2
    assert cut - whole == pytest.approx(3 / 4 * forward, rel=0.05)
