"""No verb reaches anybody that it is not asked to reach: each runs on a network of its own."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from ptft.cli.main import STAGES
from ptft.model import save_model
from ptft.recipe import dump_recipe
from tests.serving.whole_life import SWITCHES
from tests.support.alone import alone
from tests.support.comparisons import comparison
from tests.support.detectors import tiny_detector
from tests.support.runs import recipe
from tests.support.warm import Warm

HUB = {"push", "pull"}  # what they are for
MADE = [  # ahead of all others, which use them
    ("train", "recipe.yaml"),
    ("train", "recipe.yaml", "run.dir=again", "optim.lr=2e-3"),
    ("export", "run", "model", "--precision", "fp32", "--no-measure"),
]
COMMANDS = {
    "ls": [("ls",), ("ls", "--architectures"), ("ls", "--towers", "test_vit")],
    "show": [("show", "pretrain/scenes"), ("show", "--schema")],
    "cp": [("cp", "pretrain/scenes", "copied.yaml")],
    "check": [("check", "recipe.yaml")],
    "data": [("data", "look", "pictures"), ("data", "pack", "folders.yaml", "packed")],
    "evaluate": [("evaluate", "run")],
    "compare": [("compare", "compared/comparison.yaml")],
    "launch": [("launch", "recipe.yaml", "--on", "slurm")],
    "mix": [("mix", "run", "again", "mixed")],
    "index": [("index", "model", "pictures", "pictures.index", "--thumbnails", "32")],
    "predict": [("predict", "detector", "pictures", "--out", "found")],
    "sbom": [("sbom", "model")],
    "sign": [("sign", "model", "--key", "key.pem")],
    "verify": [("verify", "run", "model")],
    "gate": [("gate", "model", "--probe", "pictures/train", "--at-least", "top1=0")],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipes and pictures."""
    place = tmp_path_factory.mktemp("quiet")
    measured = [{"kind": "retrieval", "name": "own", "ks": [1]}]
    tiny = recipe(place / "run", optim__samples_seen=32, evaluate=measured)
    (place / "recipe.yaml").write_text(dump_recipe(tiny))
    (place / "compared").mkdir()
    comparison(place / "compared", seeds=1, trials=1)
    for shade, name in enumerate(("dark", "light")):
        for number in range(4):
            path = place / "pictures" / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (90 * shade, 9 * number, 0)).save(path)
    section = {
        "kind": "folder",
        "train": str(place / "pictures" / "train"),
        "captions": ["a {label}"],
    }
    made = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout"]
    subprocess.run([*made, "-out", place / "key.pem"], check=True, capture_output=True)
    save_model(tiny_detector(), place / "detector")
    values = json.loads(tiny.model_dump_json())
    (place / "folders.yaml").write_text(json.dumps({**values, "data": section}))
    return place


@pytest.fixture(scope="module")
def warm(place: Path) -> Iterator[Warm]:
    """A process that has loopback alone; two runs and a model folder are made in it."""
    environment = {k: v for k, v in os.environ.items() if k not in SWITCHES}
    environment["HF_HOME"] = str(place / "home")
    (place / "said").mkdir()
    with Warm(place / "said", environment, lambda command: alone(place / "seen", command)) as warm:
        for command in MADE:
            run(warm, place, command)
        yield warm


def run(warm: Warm, place: Path, command: tuple[str, ...]) -> None:
    child = warm.ptft(*command, cwd=place)
    assert child.wait() == 0, child.err.read_text()[-3000:]


def test_every_verb_is_held() -> None:
    verbs = {verb for stage in STAGES.values() for verb in stage}
    assert verbs == {*HUB, *COMMANDS, *(command[0] for command in MADE)}


def test_train_and_export_reach_nobody(warm: Warm, place: Path) -> None:
    assert (place / "seen").read_text() == ""


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_reaches_nobody(warm: Warm, place: Path, verb: str) -> None:
    for command in COMMANDS[verb]:
        run(warm, place, command)
    assert (place / "seen").read_text() == ""
