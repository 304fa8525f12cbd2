"""No verb reaches anybody that it is not asked to reach: each runs on a network of its own."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from ptft.cli.main import STAGES
from ptft.recipe import dump_recipe
from tests.serving.whole_life import SWITCHES
from tests.support.alone import alone
from tests.support.comparisons import comparison
from tests.support.runs import recipe
from tests.support.warm import Warm

HUB = {"push", "pull"}  # what they are for
EXPORT = ("export", "run", "model", "--precision", "fp32", "--no-measure")
COMMANDS = {
    "ls": [("ls",), ("ls", "--architectures"), ("ls", "--towers", "test_vit")],
    "show": [("show", "pretrain/scenes"), ("show", "--schema")],
    "cp": [("cp", "pretrain/scenes", "copied.yaml")],
    "check": [("check", "recipe.yaml"), ("check", "recipe.yaml", "--measure")],
    "data": [("data", "look", "pictures"), ("data", "pack", "folders.yaml", "packed")],
    "train": [("train", "recipe.yaml", "run.dir=another")],
    "evaluate": [("evaluate", "run")],
    "compare": [("compare", "comparison.yaml")],
    "mix": [("mix", "run", "again", "mixed")],
    "export": [(*EXPORT[:2], "exported", *EXPORT[3:])],
    "verify": [("verify", "run", "model")],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipes and pictures."""
    place = tmp_path_factory.mktemp("quiet")
    (place / "recipe.yaml").write_text(dump_recipe(recipe(place / "run")))
    comparison(place, seeds=1, trials=1)
    for shade, name in enumerate(("dark", "light")):
        for number in range(4):
            path = place / "pictures" / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (90 * shade, 9 * number, 0)).save(path)
    section = {"kind": "folder", "train": str(place / "pictures" / "train"), "caption": "{label}"}
    values = json.loads(recipe(place / "run").model_dump_json())
    (place / "folders.yaml").write_text(json.dumps({**values, "data": section}))
    return place


@pytest.fixture(scope="module")
def warm(place: Path) -> Iterator[Warm]:
    """A process that has loopback alone; two runs and a model folder are made in it."""
    environment = {k: v for k, v in os.environ.items() if k not in SWITCHES}
    environment["HF_HOME"] = str(place / "home")
    (place / "said").mkdir()
    with Warm(place / "said", environment, lambda command: alone(place / "seen", command)) as warm:
        for command in (
            ("train", "recipe.yaml"),
            ("train", "recipe.yaml", "run.dir=again"),
            EXPORT,
        ):
            run(warm, place, command)
        yield warm


def run(warm: Warm, place: Path, command: tuple[str, ...]) -> None:
    child = warm.ptft(*command, cwd=place)
    assert child.wait() == 0, child.err.read_text()[-3000:]


def test_making_two_runs_and_a_model_folder(warm: Warm, place: Path) -> None:
    assert (place / "seen").read_text() == ""


@pytest.mark.parametrize("verb", [verb for verbs in STAGES.values() for verb in verbs])
def test_a_verb_reaches_nobody(warm: Warm, place: Path, verb: str) -> None:
    if verb in HUB:
        pytest.skip("it is asked to")
    for command in COMMANDS[verb]:
        run(warm, place, command)
    assert (place / "seen").read_text() == ""
