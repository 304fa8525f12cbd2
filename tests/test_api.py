"""``import ptft``: the verbs as functions, and an import that costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ptft
from ptft.artifact import RunFiles, read_json
from ptft.errors import RecipeError, UsageError
from ptft.recipe import load_recipe

SMALL = {
    "name": "small",
    "model": {
        "image": "test_efficientnet",
        "image_size": 32,
        "text": {"width": 32, "layers": 1, "heads": 2, "context_length": 16},
        "embed_dim": 24,
    },
    "data": {"kind": "scenes", "size": 32, "train": 16, "val": 6, "test": 6},
    "optim": {"lr": 1e-3, "global_batch": 8, "samples_seen": 16, "precision": "fp32"},
    "evaluate": [{"kind": "retrieval"}],
    "run": {"workers": 0, "trackers": [], "neighbours": False, "device": "cpu"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "run"
    result = ptft.train(SMALL, seed=3, optim={"lr": 2e-3}, run={"dir": folder})
    assert result.finished
    assert result.folder == folder
    assert result.metrics["retrieval"]["i2t_recall@1"] >= 0
    return folder


def test_train_takes_values_and_overrides(run: Path) -> None:
    recipe = load_recipe(run / RunFiles.RECIPE)
    assert (recipe.seed, recipe.optim.lr, recipe.optim.global_batch) == (3, 2e-3, 8)
    assert SMALL["optim"]["lr"] == 1e-3, "the caller's values are not changed"


def test_evaluate_is_what_the_run_measured(run: Path) -> None:
    measured = read_json(run / RunFiles.METRICS)
    assert ptft.evaluate(run)["retrieval"] == pytest.approx(measured["retrieval"])
    again = ptft.evaluate(ptft.load_model(run), SMALL, evaluate=[{"kind": "retrieval", "ks": [2]}])
    assert "i2t_recall@2" in again["retrieval"]
    assert load_recipe(SMALL).evaluate[0].label == "retrieval"


def test_a_loaded_model_has_no_recipe_beside_it(run: Path) -> None:
    with pytest.raises(UsageError, match="give a recipe"):
        ptft.evaluate(ptft.load_model(run))


def test_load_model_embeds(run: Path) -> None:
    model = ptft.load_model(run)
    with torch.no_grad():
        _, texts = model(tokens=torch.from_numpy(model.spec.tokenizer(["a red circle"])))
    assert texts.shape == (1, 24)
    assert texts.norm().item() == pytest.approx(1)


def test_a_dict_with_a_kind_takes_the_place_of_a_section(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"optim.lrr"):
        ptft.train(SMALL, optim={"lrr": 1})
    from ptft.api import dotted_overrides

    given = {"adapt": {"kind": "lora", "rank": 2}, "optim": {"lr": 1e-5}, "data.train": tmp_path}
    assert list(dotted_overrides(given)) == [
        'adapt={"kind": "lora", "rank": 2}',
        "optim.lr=1e-05",
        f'data.train="{tmp_path}"',
    ]
    shown = load_recipe(SMALL, list(dotted_overrides({"optim": {"lr": 1e-5}})))
    assert shown.optim.lr == 1e-5


def test_importing_ptft_imports_nothing_that_takes_time() -> None:
    words = "import sys, ptft; print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


ORDERS = {
    "the package first": "import ptft; assert callable(ptft.train); import ptft.train.run",
    "what lies in it first": "import ptft.train.run; import ptft; assert callable(ptft.train)",
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_package_and_the_verb_of_its_name_are_one(order: str) -> None:
    words = (
        f"{ORDERS[order]}; ptft.train.run.train; from ptft import *; assert callable(load_model)"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_offered() -> None:
    assert set(ptft.__all__) <= set(dir(ptft))
    with pytest.raises(AttributeError, match="nothing"):
        _ = ptft.nothing
