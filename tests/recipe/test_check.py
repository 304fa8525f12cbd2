"""What is known of a recipe before anything is built: paths and names."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ptft.compat import import_open_clip, import_timm
from ptft.errors import RecipeError
from ptft.recipe import Recipe, check_recipe
from ptft.recipe.check import open_clip_architectures, timm_architectures
from ptft.recipe.load import parse_recipe
from ptft.recipe.optim import timm_optimizers
from ptft.recipe.paths import expand_paths, is_hub_id, split_hub_id


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


def check(section: str) -> Recipe:
    changes: dict[str, Any] = yaml.safe_load(section)
    plain: dict[str, Any] = {
        "name": "small",
        "data": {"kind": "scenes"},
        "optim": {"samples_seen": 4},
        **changes,
    }
    if "init" not in changes:
        plain.setdefault("model", {"name": "ViT-B-32"})
    recipe = parse_recipe(plain, where="x")
    check_recipe(recipe)
    return recipe


@pytest.mark.parametrize("section", FINE.strip().splitlines())
def test_what_is_there_or_may_be_on_the_hub_passes(shards: Path, section: str) -> None:
    found = check(section).model_dump(by_alias=True)
    for key, given in yaml.safe_load(section).items():
        assert key in found
        if isinstance(given, dict):
            assert given.keys() <= found[key].keys(), "what was asked for is what passed"


@pytest.mark.parametrize("case", WRONG.strip().split("\n\n"))
def test_what_is_not_there_is_told_of_before_anything_is_built(shards: Path, case: str) -> None:
    section, expected = case.split("\n")
    with pytest.raises(RecipeError) as caught:
        check(section)
    assert str(caught.value).startswith(expected.strip())
