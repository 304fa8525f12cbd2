"""A run from the checkpoint of another: a constant rate has no horizon and can be gone on with."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from ptft.artifact import RunFiles
from ptft.model import build_model
from ptft.recipe import ClipObjective, InitSection, check_recipe
from ptft.speech import SILENT
from ptft.train import train
from tests.support.runs import BATCH, recipe, run, weights


def test_a_run_goes_on_from_a_checkpoint_before_its_cooldown(tmp_path: Path) -> None:
    constant = {"optim__schedule": "constant", "optim__ema": 0.5, "run__checkpoint_every": 2}
    run(
        tmp_path / "first",
        **constant,
        optim__cooldown=0.5,
        optim__samples_seen=4 * BATCH,
        optim__warmup=0.0,
    )
    checkpoint = tmp_path / "first" / RunFiles.CHECKPOINTS / "step-00000002"
    begun = build_model(None, InitSection(**{"from": str(checkpoint)}), ClipObjective(), seed=0)
    raw = load_file(checkpoint / "model.safetensors")
    assert begun.spec.base == "first step-00000002"
    for name, tensor in begun.state_dict().items():
        assert torch.equal(tensor, raw[name]), "raw weights, not their average"

    more = recipe(
        tmp_path / "second",
        **constant,
        model=None,
        init={"from": str(checkpoint)},
        optim__lr=1e-9,
        optim__samples_seen=BATCH,
    )
    check_recipe(more)
    assert train(more, log=SILENT).finished
    after = weights(tmp_path / "second")
    assert max((after[name] - raw[name]).abs().max().item() for name in raw) < 1e-6
    lines = (tmp_path / "first" / RunFiles.LOG).read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in lines]
    assert rates == [1e-3, 1e-3, 1e-3, 0.5e-3]
