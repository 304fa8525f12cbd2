"""Compiled blocks: the same names and numbers, and one compiled function a tower."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from ptft.errors import TrainingError
from ptft.model import tower_blocks
from ptft.train import device as device_module
from ptft.train import run as loop_module
from ptft.train.device import compile_blocks, uncompiled, wants_compiling
from tests.support.runs import BATCH, largest_difference, run
from tests.support.tiny import arch_section, build, pictures, tokens, towers_section

pytestmark = [  # what torch's compiler says about itself
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated"),
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_names_and_numbers_stay() -> None:
    model = build(arch_section("tiny-vit"))
    names, before = list(model.state_dict()), model(pictures(model), tokens(model))
    told = compile_blocks(model, backend="eager")
    assert told == "compiled: 2 blocks of the image tower, 2 blocks of the text tower"
    assert list(model.state_dict()) == names
    after = model(pictures(model), tokens(model))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_blocks_of_a_tower_share_one_function() -> None:
    torch._dynamo.reset()
    model = build(arch_section("tiny-vit"))
    compile_blocks(model, backend="eager")
    torch._dynamo.utils.counters.clear()
    model.encode_image(pictures(model))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    with uncompiled(model):  # another batch size and mode, and nothing is compiled for it
        model.train().encode_image(pictures(model, 5))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(
    ("image", "blocks", "told"),
    [
        ("test_vit", 6, "6 blocks of the image tower, 2 blocks of the text tower"),
        ("test_convnext", 9, "9 blocks of the image tower, 2 blocks of the text tower"),
        ("mobilenetv2_035", 17, "2 blocks of the text tower"),
        ("test_resnet", 0, "2 blocks of the text tower"),
    ],
)
def test_blocks_are_compiled_where_they_are_alike(image: str, blocks: int, told: str) -> None:
    model = build(towers_section(image=image))
    assert len(tower_blocks(model.image)) == blocks
    assert compile_blocks(model, backend="eager") == f"compiled: {told}"


@pytest.mark.parametrize(
    ("device", "setting", "steps", "expected"),
    [
        (CPU, "auto", 10_000, False),
        (CUDA, "auto", 10_000, True),
        (CUDA, "auto", 999, False),
        (CUDA, "off", 10_000, False),
        (CUDA, "on", 1, True),
        (CPU, "on", 1, True),
    ],
)
def test_where_it_compiles(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, setting: str, steps: int, expected: bool
) -> None:
    monkeypatch.setattr(device_module, "why_no_compiler", lambda _: None)
    assert wants_compiling(setting, device, steps) is expected


def test_without_a_compiler_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TrainingError, match=r"run\.compile: 'on': there is no C\+\+ compiler"):
        wants_compiling("on", CPU, 1)


def test_compiled_blocks_have_the_same_gradients() -> None:
    """With everything but the last stage, code for the device, which takes a minute of g++."""
    model = build(arch_section("tiny-vit")).train()
    images, found = pictures(model, 2), []
    for compile_them in (False, True):
        if compile_them:
            compile_blocks(model, backend="aot_eager")
        model.zero_grad()
        model.encode_image(images).square().sum().backward()
        found.append({n: p.grad for n, p in model.image.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_a_run_compiles_and_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eager = functools.partial(compile_blocks, backend="eager")
    monkeypatch.setattr(device_module, "why_no_compiler", lambda _: None)
    monkeypatch.setattr(loop_module, "compile_blocks", eager)
    changes: dict[str, Any] = {
        "optim__samples_seen": 2 * BATCH,
        "evaluate": [{"kind": "retrieval", "split": "test"}],
    }
    plain = run(tmp_path / "plain", **changes)
    done = run(tmp_path / "compiled", run__compile="on", **changes)
    assert done.metrics == plain.metrics
    assert largest_difference(tmp_path / "plain", tmp_path / "compiled") == 0.0
