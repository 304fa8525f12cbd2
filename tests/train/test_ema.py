"""The moving average: by its formula, in a checkpoint, and as the model that a run leaves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ptft.artifact import RunFiles
from ptft.checkpoint import checkpoints
from ptft.train.state.ema import Ema, ema_decay
from tests.support.runs import STEPS, interrupt, largest_difference, run, weights


def _network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    model[2].requires_grad_(False)
    return model.double().to(memory_format=torch.channels_last)


def _step(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model(torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64))  # moves statistics
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator)


def test_the_decay_forgets_the_start_quickly_and_then_is_the_recipes() -> None:
    assert [ema_decay(0.9, step) for step in (1, 2, 81, 10_000)] == [0.1, 2 / 11, 0.9, 0.9]


def test_the_average_is_its_formula_over_weights_and_statistics() -> None:
    model = _network()
    ema = Ema(model, 0.6)
    names = ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    expected = {name: model.state_dict()[name].clone() for name in names}
    for step in range(1, 21):
        _step(model, step)
        ema.update(step)
        decay = min(0.6, step / (step + 9))
        for name in names:
            expected[name] = decay * expected[name] + (1 - decay) * model.state_dict()[name]
    assert set(ema.tensors) == {f"ema/{name}" for name in names}, "neither locked nor counters"
    raw = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with ema.applied():
        for name, tensor in model.state_dict().items():
            wanted = expected.get(name, raw[name])
            assert torch.allclose(tensor.double(), wanted.double(), rtol=1e-14, atol=1e-14), name
    assert all(torch.equal(tensor, raw[name]) for name, tensor in model.state_dict().items())


def test_the_weights_come_back_after_an_error() -> None:
    model = _network()
    ema = Ema(model, 0.5)
    _step(model, 0)
    raw = model[0].weight.detach().clone()
    with pytest.raises(RuntimeError, match="inside"), ema.applied():
        raise RuntimeError("inside")
    assert torch.equal(model[0].weight, raw)


RESNET = {"model__image": "test_resnet", "optim__ema": 0.7}  # with batch norms


def test_a_run_leaves_the_average_and_its_checkpoint_the_raw_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {
        **RESNET,
        "run__evaluate_every": 3,
        "evaluate": [{"kind": "retrieval", "split": "val"}],
    }
    plain = {**changes, "optim__ema": None}
    run(tmp_path / "plain", **plain)
    averaged = run(tmp_path / "averaged", **changes)
    newest = checkpoints(tmp_path / "averaged" / RunFiles.CHECKPOINTS)[0]
    raw, extra = load_file(newest / "model.safetensors"), load_file(newest / "extra.safetensors")
    without = weights(tmp_path / "plain")
    final = weights(tmp_path / "averaged")
    assert all(torch.equal(raw[name], without[name]) for name in raw), "it only looks on"
    for name, tensor in extra.items():
        assert torch.equal(final[name.removeprefix("ema/")], tensor)
    assert any(not torch.equal(final[name], raw[name]) for name in raw)
    assert any(name.endswith("running_var") for name in extra)

    from ptft.evaluate import evaluate
    from ptft.model import load_model
    from ptft.recipe import load_recipe

    recipe = load_recipe(tmp_path / "averaged" / RunFiles.RECIPE)
    again = evaluate(
        load_model(tmp_path / "averaged"), recipe.evaluate, recipe.data, seed=recipe.seed
    )
    assert again == averaged.metrics, "what was measured is what was left"

    interrupt(monkeypatch, tmp_path / "cut", 5, **changes)
    assert run(tmp_path / "cut", resume=True, **changes).finished
    assert largest_difference(tmp_path / "averaged", tmp_path / "cut") == 0.0
    cut = load_file(
        tmp_path / "cut" / RunFiles.CHECKPOINTS / f"step-{STEPS:08d}" / "extra.safetensors"
    )
    assert all(torch.equal(cut[name], extra[name]) for name in extra)


def test_sharded_weights_are_averaged_shard_by_shard(tmp_path: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    dist.init_process_group(
        "gloo", store=dist.FileStore(str(tmp_path / "s"), 1), rank=0, world_size=1
    )
    try:
        torch.manual_seed(0)
        whole, model = nn.Linear(4, 3), nn.Linear(4, 3)
        model.load_state_dict(whole.state_dict())
        fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))
        averages = [Ema(one, 0.5) for one in (whole, model)]
        for step in (1, 2, 3):
            for one, ema in zip((whole, model), averages, strict=True):
                with torch.no_grad():
                    for parameter in one.parameters():
                        parameter.mul_(1.0 + step)
                ema.update(step)
        assert all(isinstance(tensor, DTensor) for tensor in averages[1].tensors.values())
        images = torch.ones(2, 4)
        with averages[0].applied(), averages[1].applied():
            assert torch.equal(whole(images), model(images))
        assert torch.equal(whole(images), model(images))
    finally:
        dist.destroy_process_group()
