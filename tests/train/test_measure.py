"""``ptft check --measure``: what a step is made of, and what is named as the bottleneck."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.recipe import dump_recipe, load_recipe
from ptft.train.cost.measure import Measured, measure_step
from tests.support.reduced import reduce


def measured(workers: int = 1, **seconds: float) -> Measured:
    parts = {
        "data": 0.0,
        "copy": 0.0,
        "forward": 0.0,
        "loss": 0.0,
        "backward": 0.0,
        "optimiser": 0.0,
        **seconds,
    }
    return Measured(parts, batch=8, workers=workers, precision="fp32", device="cpu")


def test_workers_read_beside_the_step_and_without_them_reading_comes_on_top() -> None:
    assert measured(data=1.0, backward=2.0).step_seconds == 2.0
    assert measured(data=1.0, backward=2.0, workers=0).step_seconds == 3.0
    assert measured(data=4.0, backward=2.0).samples_per_second == 2.0


@pytest.mark.parametrize(
    ("workers", "seconds", "named", "advice"),
    [
        (2, {"data": 5.0, "backward": 4.0}, "data", "ptft data pack"),
        (0, {"data": 5.0, "backward": 4.0}, "data", "run.workers"),
        (2, {"data": 3.0, "backward": 2.0, "forward": 1.5}, "backward", "adapt"),
        (1, {"optimiser": 3.0, "backward": 2.0}, "optimiser", "global_batch"),
        (1, {"forward": 3.0}, "forward", "smaller"),
    ],
)
def test_what_a_step_waits_for_is_named_with_its_remedy(
    workers: int, seconds: dict[str, float], named: str, advice: str
) -> None:
    found = measured(workers, **seconds)
    assert found.bottleneck == named
    assert advice in found.advice


def test_a_recipe_is_timed_as_it_stands_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = reduce(load_recipe("pretrain/scenes"), tmp_path)
    found = measure_step(recipe, steps=1)
    assert found.batch == recipe.optim.global_batch
    assert all(seconds > 0 for seconds in found.seconds.values())
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["check", "recipe.yaml", "--measure"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["bottleneck"] in values["milliseconds"]
    assert values["samples_per_second"] > 0
    assert set(tmp_path.rglob("*")) == before
