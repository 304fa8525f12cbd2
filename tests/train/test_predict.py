"""What a recipe is said to take on GPUs that are not here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from ptft.cards import Offer, find_machine, known_cards
from ptft.cli.main import app
from ptft.errors import RecipeError, UsageError
from ptft.recipe import Recipe
from ptft.train.cost.count import ATTENTION_FLOPS
from ptft.train.cost.predict import predict_on
from ptft.train.cost.speed import SOURCES, card_speed, published_runs
from tests.support.runs import recipe


def offer(text: str, **options: float) -> Offer:
    return Offer(machine=find_machine(text, "--on"), **options)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def one(mine: Recipe) -> dict[str, Any]:
    return predict_on(mine, offer("a100-40"))


def attention_flops(backend: SDPBackend) -> int:
    drawn = [torch.randn(2, 3, 7, 16, requires_grad=True) for _ in range(3)]
    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION_FLOPS)
    with counter, sdpa_kernel(backend):
        F.scaled_dot_product_attention(*drawn).sum().backward()
    return counter.get_total_flops()


def test_attention_is_counted_as_the_matrices_that_it_is() -> None:
    forward = 2 * 2 * 2 * 3 * 7 * 7 * 16  # two products of (7, 16) and (16, 7), times B and heads
    assert attention_flops(SDPBackend.FLASH_ATTENTION) == 3 * forward
    assert attention_flops(SDPBackend.MATH) == 3 * forward


def test_time_and_money_follow_from_arithmetic(mine: Recipe, one: dict[str, Any]) -> None:
    priced = predict_on(mine, offer("a100-40x2", price=2.5, utilisation=0.5))
    flops = 0.5 * 312e12
    assert priced["samples_per_second"] == pytest.approx(
        2 * flops / (1e9 * priced["gflop_per_sample"]), rel=0.05
    )
    samples = mine.optim.samples_seen
    assert samples is not None
    seconds = samples / priced["samples_per_second"]
    assert priced["hours"] == pytest.approx(seconds / 3600, rel=1e-3)
    assert priced["gpu_hours"] == pytest.approx(2 * seconds / 3600, rel=1e-3)
    assert priced["cost"] == pytest.approx(2.5 * priced["gpu_hours"], rel=1e-3)
    assert "cost" not in one
    assert one["precision"] == "fp32"  # which the recipe says
    assert len(one["based_on"]) == 4


def test_a_micro_batch_takes_a_second_forward_pass(mine: Recipe, one: dict[str, Any]) -> None:
    micro = mine.model_copy(update={"optim": mine.optim.model_copy(update={"micro_batch": 4})})
    told = predict_on(micro, offer("a100-40"))
    assert 1.1 < told["gflop_per_sample"] / one["gflop_per_sample"] < 1.34
    assert told["gib"]["activations"] <= one["gib"]["activations"]


def test_what_does_not_fit_is_said_with_what_would(mine: Recipe) -> None:
    large = mine.optim.model_copy(update={"global_batch": 1 << 20, "samples_seen": 1 << 20})
    told = predict_on(mine.model_copy(update={"optim": large}), offer("t4"))
    assert not told["fits"]
    assert told["gib"]["total"] > told["gib_of_card"]
    assert told["advice"].startswith("optim.micro_batch=")
    size = int(told["advice"].split("=")[1].split()[0])
    fits = large.model_copy(update={"micro_batch": size})
    assert predict_on(mine.model_copy(update={"optim": fits}), offer("t4"))["fits"]


def test_a_batch_parts_over_the_gpus(mine: Recipe) -> None:
    with pytest.raises(
        RecipeError, match=r"--on a100-40x3: optim\.global_batch: 16: does not part"
    ):
        predict_on(mine, offer("a100-40x3"))


def test_published_runs_are_read_with_where_they_stand() -> None:
    runs = published_runs()
    assert {run.source for run in runs} == SOURCES.keys()
    assert all(0.02 < run.utilisation < 0.5 for run in runs)
    near = 0
    for run in runs:
        speed = card_speed(known_cards()[run.card], without=run)
        near += abs(run.gpus * speed.flops / (1e9 * run.gflop) / run.samples_per_second - 1) <= 0.3
    assert near >= 5


def test_no_card_is_taken_to_reach_more_than_any_did() -> None:
    best = max(run.utilisation for run in published_runs())
    for card in known_cards().values():
        speed = card_speed(card)
        assert 0 < speed.utilisation <= best + 1e-9
        assert speed.flops <= 1e12 * (card.bf16_tflops or card.fp32_tflops)
    assert "carried over" not in card_speed(known_cards()["a100-40"]).basis
    assert "carried over" in card_speed(known_cards()["h100"]).basis


def test_the_command_tells_it(tmp_path: Path) -> None:
    words = ["check", "pretrain/scenes", "data.train=64", "optim.global_batch=16"]
    words += ["--on", "l4x2", "--price", "0.8"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)["on"]
    assert told["machine"] == "l4x2"
    assert told["precision"] in ("bf16", "fp32")
    assert "memory of a GPU" in done.stderr
    for wrong, said in (
        (["--on", "h10"], "did you mean 'h100'"),
        (["--price", "2"], "--price, --utilisation: of GPUs that --on names"),
    ):
        refused = CliRunner().invoke(app, ["check", "pretrain/scenes", *wrong])
        assert isinstance(refused.exception, UsageError)
        assert said in str(refused.exception)
    compared = CliRunner().invoke(app, ["check", "compare/scenes", "--on", "h100"])
    assert "--on: of one run, and this is a comparison" in str(compared.exception)
