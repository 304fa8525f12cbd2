"""What a recipe is read from and written to: dumps, digests, files and overrides."""

from pathlib import Path
from typing import Any

import pytest

from ptft.errors import RecipeError
from ptft.recipe import (
    Recipe,
    dump_recipe,
    load_recipe,
    recipe_digest,
)
from ptft.recipe.load import parse_recipe
from tests.support.recipe_values import BUILTIN, OPTIM, OUT, problems, values

# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILTIN)
def test_a_dumped_recipe_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    again = load_recipe(path)
    assert again == recipe
    assert recipe_digest(again) == recipe_digest(recipe)
    assert dump_recipe(again) == dump_recipe(recipe)


def test_a_null_that_is_not_the_default_survives(tmp_path: Path) -> None:
    changes = {
        "optim": {"epochs": 2, "clip_grad_norm": None, "lr": 1e-05, "eps": 1e-8},
        "data": {
            "kind": "shards",
            "train": ["a b.tar", "ü-{0..1}.tar"],
            "captions": ["{x}: {{}} 🙂"],
        },
        "evaluate": [{"kind": "probe", "c": None, "data": {"kind": "folder", "train": "1"}}],
        "init": {"from": "org/name@v1"},
        "model": OUT,
    }
    recipe = parse_recipe(values(**changes), where="x")
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    again = load_recipe(tmp_path / "r.yaml")
    assert again == recipe
    assert again.optim.clip_grad_norm is None
    assert again.init is not None
    assert again.init.from_ == "org/name@v1"
    assert recipe.optim.clip_grad_norm != Recipe(**values()).optim.clip_grad_norm


def test_the_digest_is_of_what_determines_the_weights() -> None:
    digest = recipe_digest(parse_recipe(values(), where="x"))
    elsewhere = values(run={"dir": "elsewhere", "workers": 0, "device": "cpu"})
    assert recipe_digest(parse_recipe(elsewhere, where="x")) == digest
    turned = dict(reversed(values(seed=0, optim={"lr": 5e-4, "samples_seen": 4}).items()))
    assert recipe_digest(parse_recipe(turned, where="x")) == digest, "defaults written out"
    for changes in ({"seed": 1}, {"optim": {**OPTIM, "clip_grad_norm": None}}, {"name": "other"}):
        assert recipe_digest(parse_recipe(values(**changes), where="x")) != digest


# --- files and overrides --------------------------------------------------------------------------


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


SMALL = """\
name: small
model: {name: ViT-B-32}
data: {kind: scenes}
optim: {samples_seen: 4}
evaluate:
  - {kind: retrieval}
  - {kind: zero_shot, templates: ["a {}", "the {}"]}
"""


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    recipe = load_recipe(
        path,
        [
            "optim.lr=1e-4",
            "optim.clip_grad_norm=null",
            "optim.betas=[0.8, 0.9]",
            "run.dir=of: all: places",  # a new section; and no YAML, so a text
            "run.workers=0",
            "data.style=line",
            "evaluate.0.ks=[1, 3]",
            "evaluate.1.templates.1=this {}",
            "adapt={kind: full, lock: [image]}",
            "seed=1",
            "seed=2",
        ],
    )
    assert recipe.optim.lr == 1e-4
    assert recipe.optim.clip_grad_norm is None
    assert recipe.optim.betas == (0.8, 0.9)
    assert recipe.run.dir == "of: all: places"
    assert recipe.run.workers == 0
    assert recipe.data.kind == "scenes"
    assert recipe.data.style == "line"
    assert recipe.evaluate[0].kind == "retrieval"
    assert recipe.evaluate[0].ks == [1, 3]
    assert recipe.evaluate[1].kind == "zero_shot"
    assert recipe.evaluate[1].templates == ["a {}", "this {}"]
    assert recipe.adapt.kind == "full"
    assert recipe.adapt.lock == ["image"]
    assert recipe.seed == 2, "the last one holds"
    assert load_recipe(path, ["evaluate=[]"]).evaluate == []


@pytest.mark.parametrize(
    "value",
    ["{noto,blob}/train-*.tar", "*.tar", "a/{0..9}.tar", "/data/x-{00..11}.tar", "%x", "@home"],
)
def test_paths_need_no_quotes_of_yaml(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, SMALL)
    assert load_recipe(path, ["data={kind: shards}", f"data.train={value}"]).data.train == value


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.lr", "override 'optim.lr': write it as dotted.key=value"),
        ("=3", "override '=3': write it as dotted.key=value"),
        ("optim..lr=3", "override 'optim..lr=3': write it as dotted.key=value"),
        ("evaluate.2.split=test", "evaluate is a list of 2; allowed: a number below 2"),
        ("evaluate.first.split=test", "evaluate is a list of 2; allowed: a number below 2"),
        ("evaluate.-1.split=test", "evaluate is a list of 2; allowed: a number below 2"),
        ("optim.samples_seen.x=1", "optim.samples_seen is 4, which has no keys"),
        ("optim.learning_rate=1", "optim.learning_rate: unknown key"),
        ("optim.lr=", "optim.lr: ''"),
        ("optim.lr=fast", "optim.lr: 'fast'"),
        ("run.dirr=x", "run.dirr: unknown key; did you mean 'dir'"),
        ("objective.kind=clap", "objective.kind: 'clap': not allowed; did you mean 'clip'?"),
    ],
)
def test_an_override_that_does_not_fit(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, SMALL), [override])
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "a recipe is a YAML mapping, not list"),
        ("", "a recipe is a YAML mapping, not NoneType"),
        ("name: [", "not YAML: "),
        ("name: !!python/object/apply:os.system [true]", "not YAML: could not determine"),
        (SMALL + "optim: {epochs: 1}\n", "the key 'optim' comes twice"),
        (SMALL.replace("4}", "4, lr: 1, lr: 2}"), "the key 'lr' comes twice"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    text = SMALL.replace(
        "name: ViT-B-32", "image: x, image_args: {a: 1e-1, b: 2, c: on, d: 1.0e+2}"
    )
    recipe = load_recipe(write(tmp_path, text), ["optim.samples_seen=1e6"])
    assert recipe.optim.samples_seen == 1_000_000
    assert recipe.model is not None
    assert recipe.model.model_dump()["image_args"] == {"a": 0.1, "b": 2, "c": True, "d": 100.0}


def test_a_recipe_is_found_by_path_or_by_name(tmp_path: Path) -> None:
    name = BUILTIN[0]
    assert load_recipe(f"recipes/{name}.yaml") == load_recipe(name) == load_recipe(f"{name}.yaml")
    with pytest.raises(RecipeError, match=r"'pretrain/scene': .* did you mean 'pretrain/scenes'"):
        load_recipe("pretrain/scene")


def test_a_mixture_is_checked_as_a_whole() -> None:
    part = {"data": {"kind": "scenes"}, "weight": 2.0}

    def told(**changed: Any) -> str:
        data = {"kind": "mixture", "parts": [part, {**part, **changed}]}
        return "\n".join(problems(data=data))

    assert "data.parts.1.weight: 0: input should be greater than 0" in told(weight=0)
    assert "data.parts.1.wieght: unknown key; did you mean 'weight'?" in told(wieght=1)
    nested = told(data={"kind": "mixture", "parts": []})
    assert "data.parts.1.data.kind: 'mixture': not allowed" in nested
    own = told(data={"kind": "shards", "train": "x", "max_skipped": 0.5})
    assert "parts.1.data.max_skipped: 0.5: set it on the mixture" in own
    wrong = told(data={"kind": "shards", "tran": "x"})
    assert "data.parts.1.data.tran: unknown key; did you mean 'train'?" in wrong
    assert "two are named 'a'" in "\n".join(
        problems(data={"kind": "mixture", "parts": [{**part, "name": "a"}] * 2})
    )


def test_a_word_that_yaml_takes_for_a_truth_value_is_told_to_be_quoted() -> None:
    data = {"kind": "folder", "train": "x", "classes": [False, "yes"]}
    (problem,) = problems(data=data)
    assert "data.classes.0: False: allowed: a text; YAML takes yes, no, on and off" in problem
