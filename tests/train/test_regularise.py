"""The pull towards the start: its gradient, what it holds, and that a resumed run keeps its w0."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ptft.artifact import RunFiles
from ptft.checkpoint import checkpoints
from ptft.distributed import ALONE
from ptft.errors import RecipeError
from ptft.model import DualEncoder
from ptft.train.setup import Setup, set_up
from ptft.train.state.regularise import Pull, pull_to_start
from tests.support import steps, tiny
from tests.support.runs import interrupt, largest_difference, recipe, run, weights


def _moved(model: DualEncoder, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def test_the_gradient_is_autograds_of_the_penalty_as_written() -> None:
    model = steps.learner(steps.recipe())
    held = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in held.items()}
    pull = Pull(held, 0.03)
    _moved(model, 1)
    generator = torch.Generator().manual_seed(2)
    for parameter in held.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    before = {name: p.grad.clone() for name, p in held.items() if p.grad is not None}
    found = pull.add_gradients(ALONE)
    penalty = sum((0.03 * (p - start[name]) ** 2).sum() for name, p in held.items())
    assert isinstance(penalty, torch.Tensor)
    assert found == pytest.approx(penalty.item(), rel=1e-12)
    for (name, p), wanted in zip(
        held.items(), torch.autograd.grad(penalty, list(held.values())), strict=True
    ):
        assert p.grad is not None
        assert (p.grad - before[name] - wanted).abs().max().item() <= 1e-12, name


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to start from."""
    folder = tmp_path_factory.mktemp("base") / "run"
    assert run(folder).finished
    return folder


def fine_tuning(base: Path, start: float | str | None, **changes: Any) -> dict[str, Any]:
    """Changes to the tests' recipe: five steps from the base, on new data."""
    return {
        "model": None,
        "init": {"from": str(base)},
        "data": {"kind": "scenes", "size": 32, "style": "line", "train": 80, "val": 16, "test": 16},
        "optim__samples_seen": 80,
        "regularise": None if start is None else {"start": start},
        **changes,
    }


SGD = {"optim__optimizer": "sgd", "optim__clip_grad_norm": None, "optim__weight_decay": 0.0}
PLAIN = {**SGD, "optim__optimizer_args": {"momentum": 0.0, "nesterov": False}}
CONSTANT = {**PLAIN, "optim__schedule": "constant", "optim__warmup": 0.0, "optim__lr": 0.005}


def drift(base: Path, folder: Path) -> float:
    """Largest change of a weight that is held."""
    a, b = weights(base), weights(folder)
    names = [name for name in a if not name.startswith("logit_")]
    return max((a[name].double() - b[name].double()).abs().max().item() for name in names)


def test_a_huge_pull_keeps_the_weights_at_the_start(base: Path, tmp_path: Path) -> None:
    """lr * 2 * lambda = 1 takes back at each step what was moved before: one step is left."""
    long = {**CONSTANT, "optim__samples_seen": 320}
    run(tmp_path / "free", **fine_tuning(base, None, **long))
    run(tmp_path / "held", **fine_tuning(base, 100.0, **long))
    run(tmp_path / "one", **fine_tuning(base, 100.0, **{**long, "optim__samples_seen": 16}))
    one, held, free = (drift(base, tmp_path / name) for name in ("one", "held", "free"))
    assert 0 < held < min(2 * one, free / 2)
    lines = (tmp_path / "held" / RunFiles.LOG).read_text().splitlines()
    pulls = [json.loads(line)["pull"] for line in lines]
    assert pulls[0] == 0.0
    assert all(value > 0 for value in pulls[1:])


def test_micro_batches_change_nothing(base: Path, tmp_path: Path) -> None:
    run(tmp_path / "whole", **fine_tuning(base, 5.0, **CONSTANT))
    run(tmp_path / "cut", **fine_tuning(base, 5.0, **CONSTANT, optim__micro_batch=4))
    assert largest_difference(tmp_path / "whole", tmp_path / "cut") < 1e-6


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_held_to_the_same_start(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    changes = fine_tuning(base, 3.0, optim__precision=precision, run__checkpoint_every=2)
    run(tmp_path / "whole", **changes)
    interrupt(monkeypatch, tmp_path / "cut", 3, **changes)
    assert run(tmp_path / "cut", resume=True, **changes).finished
    assert largest_difference(tmp_path / "whole", tmp_path / "cut") == 0.0
    run(tmp_path / "free", **fine_tuning(base, None, optim__precision=precision))
    assert drift(base, tmp_path / "whole") < drift(base, tmp_path / "free"), "it does pull"
    newest = checkpoints(tmp_path / "cut" / RunFiles.CHECKPOINTS)[0]
    assert not any("start" in name for name in load_file(newest / "model.safetensors"))


def set_up_with(folder: Path, **changes: Any) -> tuple[Setup, Pull]:
    section = recipe(folder, **changes)
    setup = set_up(section, torch.device("cpu"))
    return setup, pull_to_start(section, setup)


def test_auto_is_one_over_the_training_samples(base: Path, tmp_path: Path) -> None:
    setup, pull = set_up_with(tmp_path, **fine_tuning(base, "auto"))
    assert pull.strength == 1 / 80
    learning = {name for name, p in setup.model.named_parameters() if p.requires_grad}
    assert set(pull.names) == learning - {"logit_scale"}
    for kind in ("probe", "projection"):
        _, probe = set_up_with(tmp_path, **fine_tuning(base, "auto", adapt={"kind": kind}))
        assert probe is not None
        assert set(probe.names) == {"image.head.proj.weight", "text.text_projection"}


def test_what_starts_at_random_is_not_held(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"regularise\.start: auto: all that learns starts at"):
        set_up_with(tmp_path, regularise={"start": "auto"})
    folder = tiny.hf_text_folder(tmp_path)
    section = {"image": "test_vit", "image_size": 32, "text": str(folder), "embed_dim": 16}
    section["context_length"] = 16
    _, pull = set_up_with(tmp_path, model=section, regularise={"start": 0.1})
    assert all(name.startswith("text.transformer.") for name in pull.names)
    assert any("embeddings" in name for name in pull.names)


@pytest.mark.parametrize(("head", "held"), [("prompts", True), ("random", False)])
def test_a_head_is_held_unless_it_is_drawn_at_random(
    base: Path, tmp_path: Path, head: str, held: bool
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / name / "0.png")
    data = {"kind": "folder", "train": str(tmp_path / "data")}
    objective = {"kind": "classify", "head": head}
    _, pull = set_up_with(tmp_path, **fine_tuning(base, "auto", data=data, objective=objective))
    assert pull.strength == 1.0, "one over the shots"
    assert ("head.weight" in pull.names) == held
    assert not any(name.startswith("text.") for name in pull.names), "it does not learn"
