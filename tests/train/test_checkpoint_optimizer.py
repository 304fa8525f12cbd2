"""The state of any optimiser goes through JSON and safetensors and comes back as it was."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ptft.checkpoint import TrainProgress, load_checkpoint, save_checkpoint
from ptft.checkpoint.optimizer import pack_optimizer, restore_optimizer
from ptft.compat import import_timm
from ptft.errors import CheckpointError
from tests.support.tiny import build, towers_section

# Those that users ask for, and of the rest those that keep a state of another kind
_NAMES = (
    *("adamw", "lion", "muon", "nadamuon", "sgd", "momentum", "lamb", "lars", "adafactor"),
    *("adafactorbv", "nadamw", "adopt", "laprop", "mars", "madgrad", "novograd", "rmsprop"),
)


def network() -> nn.Module:
    """A convolution in channels-last layout, a matrix, and vectors."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5), nn.LayerNorm(5))
    return model.to(memory_format=torch.channels_last)


def grouped(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups with names, as ptft's optimisers have."""
    groups: list[dict[str, Any]] = []
    for plain in (False, True):
        chosen = {n: p for n, p in model.named_parameters() if (p.ndim < 2) == plain}
        group = {"params": list(chosen.values()), "names": list(chosen), "base_lr": 0.01}
        groups.append({**group, "weight_decay": 0.0 if plain else 0.1})
    return groups


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        pictures = torch.randn(2, 3, 4, 4, generator=generator)
        optimizer.zero_grad()
        model(pictures.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()


def through_files(optimizer: torch.optim.Optimizer, into: torch.optim.Optimizer, at: Path) -> None:
    tensors, values = pack_optimizer(optimizer)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, at)
    kept = load_file(at)

    def read(name: str, parameter: Tensor | None) -> Tensor:
        tensor = kept[name]
        if parameter is None or parameter.shape != tensor.shape:
            return tensor
        return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)

    restore_optimizer(into, json.loads(json.dumps(values)), read, where="test")


def build_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    import_timm()
    from timm.optim import create_optimizer_v2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say of themselves is not the point here
        return create_optimizer_v2(grouped(model), opt=name, lr=0.01, weight_decay=0.1)


@pytest.mark.filterwarnings("ignore")
def test_the_optimisers_of_timm_go_on_exactly(tmp_path: Path) -> None:
    differences = {}
    for name in _NAMES:
        whole, cut = network(), network()
        with torch.compiler.set_stance("force_eager"):  # adopt compiles its update
            steps(whole, build_optimizer(name, whole), 0, 5)
            first = build_optimizer(name, cut)
            steps(cut, first, 0, 3)
            second = build_optimizer(name, cut)
            through_files(first, second, tmp_path / "state.safetensors")
            steps(cut, second, 3, 5)
        pairs = zip(whole.parameters(), cut.parameters(), strict=True)
        differences[name] = max((a - b).abs().max().item() for a, b in pairs)
    assert {name: d for name, d in differences.items() if d != 0.0} == {}


def test_moments_keep_their_type_and_layout(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(grouped(model), lr=0.01, fused=True)
    steps(model, optimizer, 0, 1)
    weight = model.get_parameter("0.weight")
    narrow = optimizer.state[weight]["exp_avg"].bfloat16()
    optimizer.state[weight]["exp_avg"] = narrow
    again = torch.optim.AdamW(grouped(model), lr=0.01, fused=True)
    through_files(optimizer, again, tmp_path / "state.safetensors")
    moment = again.state[weight]["exp_avg"]
    assert moment.dtype == torch.bfloat16
    assert torch.equal(moment, narrow)
    assert moment.is_contiguous(memory_format=torch.channels_last)


def test_a_state_of_other_parameters_is_refused(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(grouped(model), lr=0.01)
    steps(model, optimizer, 0, 1)
    fewer = grouped(model)
    dropped = fewer[0]["names"].pop()
    fewer[0]["params"].pop()
    with pytest.raises(CheckpointError, match=rf"holds {dropped}, which does not learn"):
        through_files(optimizer, torch.optim.AdamW(fewer, lr=0.01), tmp_path / "a")
    with pytest.raises(CheckpointError, match=rf"has no optimiser state for {dropped}"):
        through_files(torch.optim.AdamW(fewer, lr=0.01), optimizer, tmp_path / "b")


def test_a_state_that_no_checkpoint_can_hold_is_named() -> None:
    model = network()
    optimizer = torch.optim.SGD(grouped(model), lr=0.01, momentum=0.9)
    steps(model, optimizer, 0, 1)
    optimizer.state[model.get_parameter("0.weight")]["draw"] = object()
    with pytest.raises(CheckpointError, match=r"draw of 0\.weight is a object"):
        pack_optimizer(optimizer)


def test_extra_tensors_come_back_in_place(tmp_path: Path) -> None:
    model = build(towers_section())
    named = [(n, p) for n, p in model.named_parameters()]
    group = {"params": [p for _, p in named], "names": [n for n, _ in named]}
    optimizer = torch.optim.AdamW([group], lr=0.01)
    averaged = {f"ema/{n}": p.detach() + 1 for n, p in named}
    path = save_checkpoint(tmp_path, model, optimizer, TrainProgress(step=7, seen=70), averaged)
    found = {name: torch.zeros_like(tensor) for name, tensor in averaged.items()}
    progress = load_checkpoint(path, model, optimizer, found)
    assert (progress.step, progress.seen) == (7, 70)
    assert all(torch.equal(found[name], averaged[name]) for name in averaged)
    with pytest.raises(CheckpointError, match=r"holds ema/image\."):
        load_checkpoint(path, model, optimizer)
    plain = save_checkpoint(tmp_path, model, optimizer, TrainProgress(step=8))
    with pytest.raises(CheckpointError, match=r"lacks ema/image\."):
        load_checkpoint(plain, model, optimizer, found)
