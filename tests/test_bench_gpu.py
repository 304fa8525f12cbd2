"""The GPU benchmark's parts, on a CPU and at a tiny size: they are to run at first contact."""

import json

import pytest
import torch

from tests.bench import gpu_train
from tests.bench.__main__ import main
from tests.support.tiny import arch_section


@pytest.mark.parametrize("whose", ["ptft", "open_clip"])
def test_a_step_of_each_side_runs_and_is_timed(whose: str) -> None:
    found = gpu_train.one(whose, arch_section().name, 4, 2, "cpu", 1)
    assert found["seconds"] > 0


def test_the_loss_alone_runs() -> None:
    assert gpu_train.one("loss", "-", 16, 16, "cpu", 1)["seconds"] > 0


def test_the_largest_batch_that_fits_is_found() -> None:
    assert gpu_train.largest(lambda batch: batch <= 1_000, 128, 65_536) == 512
    assert gpu_train.largest(lambda batch: False, 128, 65_536) == 0
    assert gpu_train.largest(lambda batch: True, 128, 1_024) == 1_024


def test_captions_are_as_short_as_they_are_said_to_be() -> None:
    _, tokens = gpu_train.inputs((8, 8), 50, "cpu")
    ends = (tokens == 49_407).int().argmax(dim=1) + 1
    assert 8 <= int(ends.min()) <= int(ends.max()) <= 12


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: the benchmark would run")
def test_without_a_gpu_it_says_so_and_meets_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu_train"]) == 1
    said = capsys.readouterr().out
    assert "needs a GPU" in said
    assert json.loads(said.splitlines()[-1])["ok"] is False
