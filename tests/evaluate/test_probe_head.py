"""A head that starts as the linear probe: its logits, its accuracy, and runs that go on with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ptft.data import open_split
from ptft.evaluate import embed_split, evaluate, probe_head
from ptft.evaluate.probe import choose_c, fit_probe
from ptft.recipe import ClassifyEvaluation, FolderData, ProbeEvaluation
from ptft.train.setup import set_up
from tests.support.runs import interrupt, largest_difference, recipe, run, weights

COLOURS = {"red": (220, 60, 60), "green": (60, 200, 70), "blue": (60, 80, 220), "grey": (128,) * 3}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> FolderData:
    """Squares of four colours in so much noise that a probe errs on some."""
    top = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 25)):
        for name, colour in COLOURS.items():
            folder = top / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                shade = rng.normal(colour, 60)
                noise = rng.normal(shade, 60, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(folder / f"{index}.png")
    return FolderData(train=str(top / "train"), val=str(top / "val"))


def changes(colours: FolderData, head: str = "probe", **more: Any) -> dict[str, Any]:
    data = {"kind": "folder", "train": colours.train, "val": colours.val}
    return {"data": data, "objective": {"kind": "classify", "head": head}, **more}


def test_before_the_first_step_the_head_is_the_probe(colours: FolderData, tmp_path: Path) -> None:
    section = recipe(tmp_path / "run", **changes(colours))
    model = set_up(section, torch.device("cpu")).model
    assert model.spec.classes == tuple(sorted(COLOURS))
    assert model.spec.templates == ()
    figures = evaluate(
        model, [ClassifyEvaluation(), ProbeEvaluation()], colours, seed=section.seed, workers=0
    )
    assert figures["classify"]["top1"] == figures["probe"]["top1"]
    assert 0.4 < figures["probe"]["top1"] < 1.0, "an easy set would show nothing"

    train = embed_split(model, open_split(colours, "train"), batch=64, workers=0)
    assert train.labels is not None
    c = choose_c(train.inputs_nw, train.labels, classes=4, seed=section.seed)
    probe = fit_probe(train.inputs_nw, train.labels, classes=4, c=c)
    val = embed_split(model, open_split(colours, "val"), batch=64, workers=0).inputs_nw
    assert model.head is not None
    with torch.no_grad():
        logits = model.logit_scale.exp() * val @ model.head.weight.T + model.head.bias
    wanted = probe.logits(val)
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_the_same_recipe_gives_the_same_head(colours: FolderData, tmp_path: Path) -> None:
    heads = []
    for workers in (0, 0, 2):
        section = recipe(tmp_path / "run", **changes(colours, run__workers=workers))
        head = set_up(section, torch.device("cpu")).model.head
        assert head is not None
        heads.append(torch.cat([head.weight, head.bias[:, None]], dim=1))
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[0], heads[2])


def test_a_fit_leaves_the_model_and_the_random_numbers_as_they_were(
    colours: FolderData, tmp_path: Path
) -> None:
    section = recipe(tmp_path / "run", **changes(colours, head="prompts"))
    model = set_up(section, torch.device("cpu")).model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    probe_head(model, open_split(colours, "train"), seed=0, workers=0)
    assert model.training
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_resumed_run_goes_on_with_the_checkpoints_head(
    colours: FolderData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = changes(colours)
    run(tmp_path / "whole", **given)
    interrupt(monkeypatch, tmp_path / "cut", 3, **given)
    assert run(tmp_path / "cut", resume=True, **given).finished
    assert largest_difference(tmp_path / "whole", tmp_path / "cut") == 0.0
    start = set_up(recipe(tmp_path / "x", **given), torch.device("cpu")).model.head
    assert start is not None
    assert not torch.equal(weights(tmp_path / "whole")["head.weight"], start.weight), "it learns"
    # what a run left is a start of its own: no probe is fitted over it
    further = {**given, "model": None, "init": {"from": str(tmp_path / "whole")}}
    kept = set_up(recipe(tmp_path / "y", **further), torch.device("cpu")).model.head
    assert kept is not None
    assert torch.equal(kept.weight, weights(tmp_path / "whole")["head.weight"])
