"""What the command says of a wrong recipe, before anything heavy is imported."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from ptft.errors import RecipeError
from ptft.model import save_model
from ptft.recipe import builtin_recipes, load_evaluation, load_recipe
from tests.support.tiny import build, towers_section
from tests.support.warm import Warm

SMALL = """\
name: small
model: {name: ViT-B-32}
data: {kind: shards, train: train.tar, val: train.tar}
optim: {samples_seen: 4}
evaluate: [{kind: retrieval}]
"""


@dataclass
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


class Command(Protocol):
    def __call__(self, *arguments: str, cwd: Path) -> Done: ...


@pytest.fixture(scope="module")
def ptft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command, which also prints what of the heavy libraries it imported."""
    environment = {**os.environ, "COLUMNS": "200"}
    with Warm(tmp_path_factory.mktemp("said"), environment, light=True) as warm:

        def run(*arguments: str, cwd: Path) -> Done:
            child = warm.module("tests.support.light_command", *arguments, cwd=cwd)
            return Done(child.wait(), child.out.read_text(), child.err.read_text())

        yield run


BAD = {
    "an unknown key": ("optim.shedule=cosine", ["optim.shedule: unknown key", "'schedule'"]),
    "an ill-typed value": ("optim.lr=fast", ["optim.lr", "'fast'", "valid number"]),
    "a missing file": ("data.train=nope/*.tar", ["data.train", "'nope/*.tar'", "no such file"]),
    "no such architecture": ("model.name=ViT-B-23", ["model.name", "'ViT-B-23'", "'ViT-B-32'"]),
    "no such optimiser": ("optim.optimizer=lyon", ["optim.optimizer", "'lyon'", "'lion'"]),
    "an address to write to": (
        "run.dir=s3://bucket/run",
        ["run.dir", "'s3://bucket/run'", "local"],
    ),
    "no such kind": ("objective.kind=clap", ["objective.kind", "'clap'", "allowed: classify, "]),
}


# the model is another argument of evaluate
RUNS = [
    (v, c)
    for v in ("train", "check", "evaluate")
    for c in BAD
    if (not c.startswith("no such arch") and not c.startswith("no such opt")) or v != "evaluate"
]


@pytest.mark.parametrize(("verb", "case"), RUNS)
def test_a_wrong_recipe_exits_2_before_anything_heavy(
    ptft: Command, tmp_path: Path, verb: str, case: str
) -> None:
    override, expected = BAD[case]
    (tmp_path / "train.tar").touch()
    (tmp_path / "mine.yaml").write_text(SMALL)
    first = ["evaluate", "runs/x", "--recipe"] if verb == "evaluate" else [verb]
    if verb == "evaluate":
        override = override.replace("data.train=", "data.val=")
        expected = [part.replace("data.train", "data.val") for part in expected]
    done = ptft(*first, "mine.yaml", override, cwd=tmp_path)
    message, _, loaded = done.stderr.rstrip("\n").rpartition("\n")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert message.startswith("ptft: ")
    assert "Traceback" not in message
    for part in expected:
        assert part in message
    assert loaded == "loaded:", "it answers at once only without these"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "out"),
    [
        (["ls"], 0, "pretrain/scenes "),
        (["ls", "--architectures"], 0, "ViT-B-16-SigLIP\n"),
        (["ls", "--towers", "mobilenetv2"], 0, "mobilenetv2_100\n"),
        (["show", "pretrain/scenes", "optim.lr=1e-4"], 0, "lr: 0.0001\n"),
        (["show", "--schema"], 0, '"$schema": "https://json-schema.org/draft/2020-12/schema"'),
        (["check", "pretrain/scenes", "--files-only"], 0, '{"recipe": "scenes", "ok": true}'),
        (["cp", "pretrain/scenes", "new/mine.yaml"], 0, "new/mine.yaml\n"),
        (["--help"], 0, "evaluate"),
        (["train", "--help"], 0, "--resume"),
        (["show", "pretrain/scene"], 2, ""),
        (["show"], 2, ""),
        (["trian", "x"], 2, ""),
        (["train"], 2, ""),
        (["evaluate", "nothing/here"], 2, ""),
    ],
    ids=str,
)
def test_what_needs_nothing_heavy_imports_nothing_heavy(
    ptft: Command, tmp_path: Path, arguments: list[str], code: int, out: str
) -> None:
    done = ptft(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert out in done.stdout
    assert done.stderr.endswith("loaded:\n")
    assert "Traceback" not in done.stderr
    if code:
        assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "runs/x", "s3://bucket/model"],
        ["pull", "org/model", "gs://bucket/model"],
        ["push", "hf://org/model", "org/model"],
        ["mix", "runs/x", "runs/y", "file:///model"],
        ["cp", "pretrain/scenes", "s3://bucket/mine.yaml"],
        ["evaluate", "runs/x", "-o", "s3://bucket/figures.json"],
        ["compare", "mine.yaml", "run.dir=s3://bucket/run"],
    ],
    ids=str,
)
def test_an_address_is_no_folder(ptft: Command, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "train.tar").touch()
    (tmp_path / "mine.yaml").write_text(SMALL)
    done = ptft(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    given = next(word.removeprefix("run.dir=") for word in arguments if "://" in word)
    assert f"{given!r}: an address; allowed: a local path" in done.stderr
    assert done.stderr.endswith("loaded:\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "train.tar"]


def test_what_is_only_measured_by_needs_only_what_it_uses(tmp_path: Path) -> None:
    scenes = {"kind": "scenes", "size": 32}
    texts = {"kind": "table", "val": "texts.csv", "image": None, "label": "kind"}
    recipes: dict[str, dict[str, Any]] = {
        "data of the recipe": {"data": scenes, "evaluate": [{"kind": "retrieval"}]},
        "data of each": {"evaluate": [{"kind": "retrieval", "data": scenes}]},
        "texts": {"data": texts, "evaluate": [{"kind": "zero_shot", "reads": "text"}]},
        "some of a training": {
            "data": scenes,
            "evaluate": [{"kind": "retrieval"}],
            "objective": {"kind": "siglip"},
            "optim": {"lr": 1.0},
        },
    }
    for name, values in recipes.items():
        (tmp_path / "mine.yaml").write_text(json.dumps(values))
        loaded = load_evaluation(tmp_path / "mine.yaml", model="runs/x")
        (item,) = loaded.evaluate
        assert (item.data or loaded.data).kind == ("table" if name == "texts" else "scenes")
        with pytest.raises(RecipeError, match="name: missing"):
            load_recipe(tmp_path / "mine.yaml")
    wrong = {
        "data: missing": {"evaluate": [{"kind": "retrieval"}, {"kind": "probe", "data": scenes}]},
        "evaluat: unknown key; did you mean 'evaluate'": {"data": scenes, "evaluat": []},
        "optim.lr: -1": {"data": scenes, "optim": {"lr": -1}},
        "data.image: null": {"data": texts, "evaluate": [{"kind": "retrieval"}]},
    }
    for expected, values in wrong.items():
        (tmp_path / "mine.yaml").write_text(json.dumps(values))
        with pytest.raises(RecipeError, match=re.escape(expected)):
            load_evaluation(tmp_path / "mine.yaml", model="runs/x")


def test_a_model_is_evaluated_by_a_recipe_of_two_lines(ptft: Command, tmp_path: Path) -> None:
    save_model(build(towers_section()), tmp_path / "model")
    (tmp_path / "mine.yaml").write_text(
        "data: {kind: scenes, size: 32, val: 16}\nevaluate: [{kind: retrieval}]\n"
    )
    done = ptft("evaluate", "model", "-r", "mine.yaml", "-o", "figures.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    assert figures["retrieval"]["images"] == 16
    told = [line for line in done.stderr.splitlines() if not line.endswith(" s so far")]
    unheld = "model: nothing records what its files are; none was held"
    assert told[:4] == ["reading model", unheld, "measuring it by retrieval", "16 val images"]


def test_cp_keeps_what_is_there(ptft: Command, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    done = ptft("cp", "pretrain/scenes", "mine", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "mine/scenes.yaml\n")
    copied = folder / "scenes.yaml"
    assert copied.read_bytes() == builtin_recipes()["pretrain/scenes"].read_bytes()
    copied.write_text("mine")
    again = ptft("cp", "pretrain/scenes", "mine", cwd=tmp_path)
    assert again.returncode == 2
    assert "ptft: mine/scenes.yaml: exists already" in again.stderr
    assert copied.read_text() == "mine"
