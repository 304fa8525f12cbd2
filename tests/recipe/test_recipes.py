"""Every built-in recipe: what its header says, one step of it at reduced size, and the wheel."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ptft.artifact import RunFiles, file_sha256
from ptft.model import DualEncoder, apply_adapt, build_model, init_head, load_model
from ptft.model.detecting import prepare_detector
from ptft.recipe import (
    ClassifyObjective,
    DetectObjective,
    FullAdapt,
    ProbeAdapt,
    Recipe,
    SiglipObjective,
    StagedRecipe,
    builtin_recipes,
    load_comparison,
    load_recipe,
    read_towers,
    stage_recipe,
)
from ptft.recipe.yaml_text import read_yaml
from ptft.speech import SILENT
from ptft.train import train
from tests.support.reduced import reduce

RECIPES = {
    name: path for name, path in builtin_recipes().items() if not name.startswith("compare/")
}
COMPARISONS = builtin_recipes().keys() - RECIPES.keys()
FIELDS = ("command", "hardware", "hours", "expected")
"""What a header says below its first line; ``source``, ``differs`` and others may follow."""


def header(name: str) -> dict[str, str]:
    """The fields of a recipe's header comment, and under ``""`` its first line."""
    lines = builtin_recipes()[name].read_text(encoding="utf-8").splitlines()
    fields = {"": lines[0].removeprefix("#").strip()}
    last = ""
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        start = re.match(r"# ([a-z][a-z ]*):\s+(\S.*)", line)
        more = re.match(r"#\s{3,}(\S.*)", line)
        if start:
            last = start[1]
            fields[last] = start[2]
        elif more:
            fields[last] += f" {more[1]}"
        else:
            assert line == "#", f"neither a field nor its continuation: {line!r}"
    return fields


def test_there_are_recipes_for_each_purpose() -> None:
    purposes = {name.partition("/")[0] for name in RECIPES}
    assert {"pretrain", "finetune", "detect"} <= purposes
    objectives = {load_recipe(name).objective.kind for name in RECIPES}
    assert objectives == {"clip", "siglip", "classify", "detect", "self_supervised"}


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_comparisons_load_and_say_what_they_ask(name: str) -> None:
    comparison = load_comparison(name)
    assert comparison.compare.retain or comparison.init is None  # a start that knows nothing here
    assert builtin_recipes()[name].read_text(encoding="utf-8").partition("\n")[0].endswith("?")


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_says_how_where_how_long_and_what_to_expect(name: str) -> None:
    said = header(name)
    assert said[""].endswith("."), "the first line is a sentence: ptft ls shows it"
    assert len(said[""]) <= 100
    assert not [field for field in FIELDS if not said.get(field)]
    assert re.match(r"[\d.,]+ ", said["hours"] + " "), "hours begin with a number"
    assert re.search(r"\d", said["expected"]), "a figure is expected"
    if "GPU" in said["hardware"]:
        assert said["source"], "a figure of the literature has a source"
        assert said["differs"]
    assert not re.search(r"(^|[\s='\"])/(work|tmp|home|root)/", RECIPES[name].read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_in_the_header_loads(name: str) -> None:
    program, verb, recipe, *overrides = shlex.split(header(name)["command"])
    assert (program, verb) == ("ptft", "train")
    assert recipe in (name, f"recipes/{name}.yaml")
    changed = load_recipe(name, overrides)
    assert changed.name == RECIPES[name].stem
    named = {override.partition("=")[0] for override in overrides}
    plain = load_recipe(name).model_dump(mode="json", by_alias=True)
    assert all(changed_at(plain, key) for key in named), "each override is of a key that is there"


def changed_at(values: object, dotted: str) -> bool:
    for key in dotted.split("."):
        if isinstance(values, dict) and key in values:
            values = values[key]
        elif isinstance(values, list) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
        else:
            return False
    return True


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_only_differences_from_the_defaults(name: str) -> None:
    """But for the rate and the batch, which readers look for."""
    text = RECIPES[name].read_text(encoding="utf-8")
    assert not re.search(r"\t|\$\{|<<:|!!", text), "plain YAML: no interpolation, merging, tags"
    written = read_yaml(text)
    recipe = load_recipe(name)
    for section in ("optim", "augment", "run"):
        defaults = type(getattr(recipe, section)).model_fields
        needless = [
            key
            for key, value in written.get(section, {}).items()
            if key not in ("lr", "global_batch") and value == _plain(defaults[key].default)
        ]
        assert not needless, f"{section}: these are the defaults"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# --- one step -------------------------------------------------------------------------------------


def before(recipe: Recipe, folder: Path) -> DualEncoder:
    """The model that training starts from: the same seed gives the same weights."""
    model = build_model(recipe.model, recipe.init, recipe.objective, seed=recipe.seed)
    if isinstance(recipe.objective, ClassifyObjective):
        trained = load_model(folder / RunFiles.FINAL)
        assert trained.spec.classes
        init_head(model, list(trained.spec.classes), recipe.objective, seed=recipe.seed)
    if isinstance(recipe.objective, DetectObjective):
        marked = load_model(folder / RunFiles.FINAL).detector
        assert marked is not None
        prepare_detector(model, recipe.objective, marked.spec.classes, seed=recipe.seed)
    apply_adapt(model, recipe.adapt, recipe.objective)
    return model


@pytest.mark.parametrize("name", RECIPES)
def test_one_step_moves_what_learns_and_nothing_else(name: str, tmp_path: Path) -> None:
    whole = load_recipe(name)
    if isinstance(whole, StagedRecipe):  # how stages follow on each other is tested elsewhere
        plain = whole.model_copy(update={"guard": None})
        whole = stage_recipe(plain, len(whole.stages) - 1, start="a stage", folder="")
    recipe = reduce(whole, tmp_path)
    result = train(recipe, log=SILENT)
    folder = tmp_path / "run"
    assert result.finished
    assert result.folder == folder

    model = before(recipe, folder)
    after = load_file(folder / RunFiles.FINAL / "model.safetensors")
    assert after.keys() == model.state_dict().keys()
    moved = {
        tensor_name: not torch.equal(tensor.detach(), after[tensor_name])
        for tensor_name, tensor in model.named_parameters()
    }
    learning = {n for n, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning
    assert not {n for n, yes in moved.items() if yes} - learning, "moved though locked"
    # the norms inside a ResNet's branches get no gradient yet: the branches start at zero
    # and so it is behind the last layer of a box head
    late = (".bn", "box_head.dense0", "box_head.dense1")
    still = {n for n in learning if not moved[n] and not any(part in n for part in late)}
    assert not still, "does not learn"
    state = model.state_dict()
    kept = [n for n in after if n.partition(".")[0] in model.locked and n not in learning]
    assert bool(kept) == bool(model.locked)
    assert all(torch.equal(state[n], after[n]) for n in kept), "batch statistics of a locked tower"
    assert all(
        torch.isfinite(tensor).all() for tensor in after.values() if tensor.is_floating_point()
    )
    check_what_learns(recipe, learning)
    check_run_folder(recipe, folder)


def check_what_learns(recipe: Recipe, learning: set[str]) -> None:
    towers = {name.partition(".")[0] for name in learning}
    classify = isinstance(recipe.objective, ClassifyObjective)
    if isinstance(recipe.adapt, ProbeAdapt):
        assert len(learning) < 8
        assert not classify or towers == {"head"}
    elif isinstance(recipe.adapt, FullAdapt):
        free = set(read_towers(recipe.objective)) - set(recipe.adapt.lock)
        assert free <= towers
        for tower in recipe.adapt.lock:
            assert sum(name.startswith(f"{tower}.") for name in learning) <= 2, "its projection"
    assert ("head" in towers) == (classify and getattr(recipe.adapt, "head", True))
    assert ("detector" in towers) == isinstance(recipe.objective, DetectObjective)
    assert ("logit_bias" in towers) == isinstance(recipe.objective, SiglipObjective)


def check_run_folder(recipe: Recipe, folder: Path) -> None:
    record = json.loads((folder / RunFiles.RUN).read_text())
    assert (record["status"], record["step"], record["seen"]) == (
        "finished",
        1,
        recipe.optim.global_batch,
    )
    assert record["skipped"] == 0
    assert record["weights_digest"] == file_sha256(folder / RunFiles.FINAL / "model.safetensors")
    assert load_recipe(folder / RunFiles.RECIPE) == recipe
    metrics = json.loads((folder / RunFiles.METRICS).read_text())
    assert list(metrics) == [item.name or item.kind for item in recipe.evaluate]
    assert all(figures["skipped"] == 0 for figures in metrics.values())
    first = json.loads((folder / RunFiles.LOG).read_text().splitlines()[0])
    assert first["step"] == 1
    assert first["loss"] > 0
    assert (folder / RunFiles.CURVES).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (folder / RunFiles.CHECKPOINTS).iterdir()] == ["step-00000001"]


# --- installed ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    options = ["--no-index", "--disable-pip-version-check", "-w", str(folder), str(repo)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("ptft-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout that holds what pip would install."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run_installed(site: Path, cwd: Path, *arguments: str) -> str:
    code = "from ptft.cli.main import main; main()"
    env = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_recipes_come_with_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import ptft; print(ptft.__file__)"
    env = {**os.environ, "PYTHONPATH": str(installed)}
    where = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=env, text=True)
    assert Path(where.strip()).is_relative_to(installed), "the installed one is tested"
    listed = run_installed(installed, tmp_path, "ls")
    assert [line.split()[0] for line in listed.splitlines()] == list(builtin_recipes())
    for name in builtin_recipes():
        assert header(name)[""] in listed


def test_an_installed_recipe_is_shown_copied_and_checked(installed: Path, tmp_path: Path) -> None:
    shown = run_installed(installed, tmp_path, "show", "pretrain/scenes", "seed=7")
    assert read_yaml(shown) == {
        **load_recipe("pretrain/scenes").model_dump(mode="json", by_alias=True),
        "seed": 7,
    }
    assert run_installed(installed, tmp_path, "cp", "pretrain/scenes", ".") == "scenes.yaml\n"
    assert (tmp_path / "scenes.yaml").read_bytes() == RECIPES["pretrain/scenes"].read_bytes()
    checked = run_installed(installed, tmp_path, "check", "scenes.yaml", "--files-only")
    assert json.loads(checked) == {"recipe": "scenes", "ok": True}


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path, repo: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops - {"serving"} == {"ptft", *(top for top in tops if top.endswith(".dist-info"))}
    assert "ptft/py.typed" in names
    assert "ptft/recipes/speedrun.sh" in names or not (repo / "recipes/speedrun.sh").exists()
    sources = {
        path.relative_to(repo).as_posix()
        for kind in ("*.py", "*.css", "*.js")
        for path in (repo / "ptft").rglob(kind)
    }
    assert sources <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
