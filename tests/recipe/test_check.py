"""What is known of a recipe before anything is built: paths, names, and the command's exits."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptft.compat import import_open_clip, import_timm
from ptft.errors import RecipeError
from ptft.model import save_model
from ptft.recipe import builtin_recipes, check_recipe, load_evaluation, load_recipe
from ptft.recipe.check import open_clip_architectures, timm_architectures
from ptft.recipe.load import parse_recipe
from ptft.recipe.optimizers import timm_optimizers
from ptft.recipe.paths import expand_paths, is_hub_id, split_hub_id
from tests.support.tiny import build, towers_section

HEAVY = ("torch", "torchvision", "open_clip", "timm", "transformers", "onnxruntime", "matplotlib")

SMALL = """\
name: small
model: {name: ViT-B-32}
data: {kind: shards, train: train.tar, val: train.tar}
optim: {samples_seen: 4}
evaluate: [{kind: retrieval}]
"""


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b/x-1.tar", "b/x-0.tar", "a/x-0.tar", "a/[v1].tar", "a/{odd}.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("a/x-0.tar", ["a/x-0.tar"]),
        ("b/*.tar", ["b/x-0.tar", "b/x-1.tar"]),
        ("{b,a}/x-*.tar", ["b/x-0.tar", "b/x-1.tar", "a/x-0.tar"]),
        ("b/x-{1..0}.tar", ["b/x-1.tar", "b/x-0.tar"]),
        (["b/x-1.tar", "a/x-?.tar"], ["b/x-1.tar", "a/x-0.tar"]),
        ("a/[v1].tar", ["a/[v1].tar"]),
        ("a/{odd}.tar", ["a/{odd}.tar"]),
        ("b", ["b"]),
    ],
)
def test_patterns_of_paths(shards: Path, patterns: str | list[str], expected: list[str]) -> None:
    assert expand_paths(patterns, "data.train") == [Path(path) for path in expected]


def test_paths_from_home_and_from_the_root(shards: Path) -> None:
    assert expand_paths("~/b/*.tar", "k") == [shards / "b/x-0.tar", shards / "b/x-1.tar"]
    assert expand_paths(f"{shards}/b/x-{{0..1}}.tar", "k")[1] == shards / "b/x-1.tar"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("c/*.tar", "data.train: 'c/*.tar': no such file or folder"),
        ("b/x-{0..2}.tar", "data.train: 'b/x-2.tar': no such file or folder"),
        (["b/x-0.tar", "nope"], "data.train: 'nope': no such file or folder"),
        ("b/x-{0..1.tar", "data.train: 'b/x-{0..1.tar': unbalanced braces"),
        ([], "data.train: an empty list; allowed: at least one path"),
        ("", "data.train: '': no such file or folder"),
    ],
)
def test_patterns_that_mean_nothing(shards: Path, patterns: str | list[str], expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        expand_paths(patterns, "data.train")
    assert str(caught.value) == expected


def test_what_is_a_hub_id(shards: Path) -> None:
    assert is_hub_id("org/name")
    assert is_hub_id("org/name@v1.0")
    assert is_hub_id("org/name@refs/pr/1:train")
    assert not is_hub_id("a/x-0.tar"), "it exists here"
    for text in ("name", "/org/name", "org/name/more", "../name", "org/name@", "org/na me"):
        assert not is_hub_id(text)
    assert split_hub_id("org/name@v1:test") == ("org/name", "v1", "test")
    assert split_hub_id("org/name") == ("org/name", None, None)
    with pytest.raises(RecipeError, match="not of the form org/name@revision"):
        split_hub_id("name")


# --- what can be known before anything is built ---------------------------------------------------


def test_architectures_are_those_of_the_libraries() -> None:
    known = {name for name in import_open_clip().list_models() if not name.startswith("tiny-")}
    assert set(open_clip_architectures()) == known  # other tests add tiny ones to this process
    assert set(timm_architectures()) == set(import_timm().list_models())


def test_optimisers_are_those_of_timm() -> None:
    import_timm()
    from timm.optim import get_optimizer_info, list_optimizers

    known = timm_optimizers()
    assert set(known) == set(list_optimizers())
    for name, one in known.items():
        theirs = get_optimizer_info(name)
        pair = theirs.has_betas and theirs.num_betas == 2
        assert (one.betas, one.eps) == (pair, theirs.has_eps), name
        elsewhere = isinstance(theirs.opt_class, str)
        random = name.startswith("kron")
        assert (one.refused is not None) == (elsewhere or theirs.second_order or random), name


FINE = """
model: {name: ViT-B-32}
model: {name: ViT-B-32, pretrained: laion/of-the-hub@v1}
model: {image: resnet18.a1_in1k}
model: {image: resnet18, text: org/bert@v1}
init: {from: org/repo@v1}
init: {from: a}
data: {kind: shards, train: "b/*.tar"}
data: {kind: table, train: "org/data:train"}
optim: {samples_seen: 4, optimizer: adan, optimizer_args: {betas: [0.9, 0.92, 0.99]}}
"""

WRONG = """
model: {name: ViT-B-23}
    model.name: 'ViT-B-23': not an architecture of open_clip; did you mean 'ViT-B-32'

model: {name: ViT-B-32, pretrained: ./mine.safetensors}
    model.pretrained: './mine.safetensors': no such file or folder

model: {image: resnet81}
    model.image: 'resnet81': not an architecture of timm; did you mean

model: {image: resnet18, image_weights: a/b.safetensors}
    model.image_weights: 'a/b.safetensors': no such file or folder

model: {image: resnet18, text: a}
    model.text: 'a': the folder has no config.json

model: {image: resnet18, text: ../not there}
    model.text: '../not there': no such folder; allowed: a folder, a Hub id

init: {from: a/missing}
    init.from: 'a/missing': no such file or folder; allowed: a path, or org/repo@revision

data: {kind: shards}
    data.train: missing; this recipe reads that split

data: {kind: shards, train: "b/*.tar", test: c.tar}
    data.test: 'c.tar': no such file or folder

data: {kind: table, train: x.parquet}
    data.train: 'x.parquet': no such file or folder

data: {kind: folder, train: a, classes: names.txt}
    data.classes: 'names.txt': no such file

evaluate: [{kind: retrieval, data: {kind: folder}}]
    evaluate.0.data.val: missing; this recipe reads that split

evaluate: [{kind: retrieval, data: {kind: folder, val: c}}]
    evaluate.0.data.val: 'c': no such file or folder

evaluate: [{kind: probe, data: {kind: folder, val: a}}]
    evaluate.0.data.train: missing; this recipe reads that split

optim: {samples_seen: 4, optimizer: lyon}
    optim.optimizer: 'lyon': not one of timm's; did you mean 'lion'

optim: {samples_seen: 4, optimizer: lookahead_lion}
    optim.optimizer: 'lookahead_lion': lookahead keeps a second copy of the weights

optim: {samples_seen: 4, optimizer: kronw}
    optim.optimizer: 'kronw': it draws random numbers of its own

optim: {samples_seen: 4, optimizer: adahessian}
    optim.optimizer: 'adahessian': it needs gradients of gradients

optim: {samples_seen: 4, optimizer: bnbadamw8bit}
    optim.optimizer: 'bnbadamw8bit': it is bitsandbytes's

optim: {samples_seen: 4, optimizer: sgd, betas: [0.9, 0.99]}
    optim.betas: not an argument of sgd; allowed: null

optim: {samples_seen: 4, optimizer: adan, betas: [0.9, 0.99]}
    optim.betas: not an argument of adan; allowed: null

optim: {samples_seen: 4, optimizer: lion, eps: 1.0e-6}
    optim.eps: not an argument of lion; allowed: null

optim: {samples_seen: 4, optimizer: lamb, optimizer_args: {weight_decay: 0.1}}
    optim.optimizer_args.weight_decay: write it as optim.weight_decay

optim: {samples_seen: 4, optimizer_args: {amsgrad: true}}
    optim.optimizer_args.amsgrad: adamw has its keys; see optim.betas, eps
"""


def check(section: str) -> None:
    changes: dict[str, Any] = yaml.safe_load(section)
    plain: dict[str, Any] = {
        "name": "small",
        "data": {"kind": "scenes"},
        "optim": {"samples_seen": 4},
        **changes,
    }
    if "init" not in changes:
        plain.setdefault("model", {"name": "ViT-B-32"})
    check_recipe(parse_recipe(plain, where="x"))


@pytest.mark.parametrize("section", FINE.strip().splitlines())
def test_what_is_there_or_may_be_on_the_hub_passes(shards: Path, section: str) -> None:
    check(section)


@pytest.mark.parametrize("case", WRONG.strip().split("\n\n"))
def test_what_is_not_there_is_told_of_before_anything_is_built(shards: Path, case: str) -> None:
    section, expected = case.split("\n")
    with pytest.raises(RecipeError) as caught:
        check(section)
    assert str(caught.value).startswith(expected.strip())


# --- the command ----------------------------------------------------------------------------------

COMMAND = f"""
import sys
from ptft.cli.main import main
try:
    main()
    code = 0
except SystemExit as stop:
    code = stop.code or 0
loaded = sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r}))
print("loaded:", *loaded, file=sys.stderr)
sys.exit(code)
"""


def ptft(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, which also prints what of the heavy libraries it imported."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
    )


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
def test_a_wrong_recipe_exits_2_before_anything_heavy(tmp_path: Path, verb: str, case: str) -> None:
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
    tmp_path: Path, arguments: list[str], code: int, out: str
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
def test_an_address_is_no_folder(tmp_path: Path, arguments: list[str]) -> None:
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


def test_a_model_is_evaluated_by_a_recipe_of_two_lines(tmp_path: Path) -> None:
    save_model(build(towers_section()), tmp_path / "model")
    (tmp_path / "mine.yaml").write_text(
        "data: {kind: scenes, size: 32, val: 16}\nevaluate: [{kind: retrieval}]\n"
    )
    done = ptft("evaluate", "model", "-r", "mine.yaml", "-o", "figures.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    assert figures["retrieval"]["images"] == 16
    told = done.stderr.splitlines()
    unheld = "model: nothing records what its files are; none was held"
    assert told[:4] == ["reading model", unheld, "measuring it by retrieval", "16 val images"]


def test_cp_keeps_what_is_there(tmp_path: Path) -> None:
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
