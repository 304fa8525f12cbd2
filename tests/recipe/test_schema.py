"""Recipes: what is refused and in which words, the JSON schema, round trips, overrides."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ptft.errors import RecipeError
from ptft.recipe import (
    Recipe,
    builtin_recipes,
    dump_recipe,
    load_recipe,
    recipe_digest,
    recipe_json_schema,
)
from ptft.recipe.load import parse_recipe
from ptft.recipe.yaml_reader import read_yaml

BUILTIN = [name for name in builtin_recipes() if not name.startswith("compare/")]
OPTIM = {"samples_seen": 4}
RETRIEVAL = {"kind": "retrieval"}
OUT = "(left out)"


def values(**changes: Any) -> dict[str, Any]:
    """The smallest recipe, with sections replaced or left out."""
    plain = {
        "name": "small",
        "model": {"name": "ViT-B-32"},
        "data": {"kind": "scenes"},
        "optim": OPTIM,
        **changes,
    }
    return {key: value for key, value in plain.items() if value != OUT}


def cases(text: str) -> list[Any]:
    """Sections as YAML, each followed by the indented message that they deserve."""
    found = []
    for block in text.strip().split("\n\n"):
        section, *message = block.splitlines()
        expected = " ".join(line.strip() for line in message)
        found.append(pytest.param(yaml.safe_load(section), expected, id=expected))
    return found


def problems(**changes: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(values(**changes), where="mine.yaml")
    lines = str(caught.value).split("\n")
    assert all(line.startswith("mine.yaml: ") for line in lines)
    return [line.removeprefix("mine.yaml: ") for line in lines]


UNKNOWN = cases("""
optm: {}
    optm: unknown key; did you mean 'optim'?

optim: {samples_seen: 4, sheduler: x}
    optim.sheduler: unknown key; did you mean 'schedule'?

model: {name: x, pretraind: y}
    model.pretraind: unknown key; did you mean 'pretrained'?

model: {image: x, txt: y}
    model.txt: unknown key; did you mean 'text'?

model: {image: x, text: {widht: 3}}
    model.text.widht: unknown key; did you mean 'width'?

data: {kind: scenes, stile: line}
    data.stile: unknown key; did you mean 'style' or 'size'?

data: {kind: shards, trian: y}
    data.trian: unknown key; did you mean 'train'?

data: {kind: table, table: y}
    data.table: unknown key; did you mean 'label'?

objective: {kind: siglip, head: prompts}
    objective.head: unknown key;
    allowed: init_bias, init_temperature, kind, max_logit_scale, multi_positive, templates

adapt: {kind: probe, lock: [image]}
    adapt.lock: unknown key; allowed: kind

evaluate: [{kind: retrieval}, {kind: probe, splitt: val}]
    evaluate.1.splitt: unknown key; did you mean 'split'?

evaluate: [{kind: retrieval, data: {kind: shards, capitons: [x]}}]
    evaluate.0.data.capitons: unknown key; did you mean 'captions'?

run: {chekpoint_every: 1}
    run.chekpoint_every: unknown key; did you mean 'checkpoint_every'?
""")

REFUSED = cases("""
data: {kind: scene}
    data.kind: 'scene': not allowed; did you mean 'scenes'?
    (allowed: folder, mixture, scenes, shards, table)

data: {train: a.tar}
    data: needs a kind; allowed: folder, mixture, scenes, shards, table

data: scenes
    data: 'scenes': allowed: a section, that is keys with values

data: {kind: shards, train: [a, 1]}
    data.train.1: 1: input should be a valid string

objective: {kind: clap}
    objective.kind: 'clap': not allowed; did you mean 'clip'? (allowed: classify, clip, siglip)

adapt: {kind: loar}
    adapt.kind: 'loar': not allowed; did you mean 'lora'?
    (allowed: bottleneck, dora, full, ia3, lora, prefix, probe, projection, tip_adapter)

adapt: {kind: lora, targets: [q, qkv]}
    adapt.targets.1: 'qkv': not allowed; allowed: conv, fc1, fc2, k, out, q, v

adapt: {kind: lora, towers: [text, text]}
    adapt.towers: named twice: text

adapt: {kind: prefix, length: 0}
    adapt.length: 0: input should be greater than or equal to 1

adapt: {kind: full, rank: 8}
    adapt.rank: unknown key; allowed: freeze_norm, kind, lock

adapt: {kind: full, lock: [imge]}
    adapt.lock.0: 'imge': not allowed; did you mean 'image'? (allowed: image, text)

evaluate: [{kind: retrieval}, {kind: zeroshot}]
    evaluate.1.kind: 'zeroshot': not allowed; did you mean 'zero_shot'?
    (allowed: classify, probe, retrieval, zero_shot)

evaluate: [{kind: retrieval, ks: [1, 0]}]
    evaluate.0.ks.1: 0: input should be greater than 0

evaluate: [retrieval]
    evaluate.0: 'retrieval': allowed: a section, that is keys with values

model: {}
    model.name: missing

model: ViT-B-32
    model: 'ViT-B-32': allowed: a section, that is keys with values

model: {image: x, embed_dim: wide}
    model.embed_dim: 'wide': input should be a valid integer,
    unable to parse string as an integer

model: {image: x, text: {width: wide}}
    model.text.width: 'wide': input should be a valid integer,
    unable to parse string as an integer

model: {image: x, mean: [0.5, 0.5]}
    model.mean.2: missing

optim: {samples_seen: 4, lr: fast}
    optim.lr: 'fast': input should be a valid number, unable to parse string as a number

optim: {samples_seen: 4, betas: [0.9, 1.0]}
    optim.betas.1: 1.0: input should be less than 1

optim: {samples_seen: 4, schedule: cosin}
    optim.schedule: 'cosin': not allowed; did you mean 'cosine'? (allowed: constant, cosine, wsd)

optim: {samples_seen: 0}
    optim.samples_seen: 0: input should be greater than or equal to 1

run: {trackers: [mlflow]}
    run.trackers.0: 'mlflow': not allowed; allowed: tensorboard, trackio, wandb

name: ../elsewhere
    name: '../elsewhere': string should match pattern '^[A-Za-z0-9][A-Za-z0-9_.-]*$'

name: (left out)
    name: missing
""")

BEYOND_JSON_SCHEMA = cases("""
optim: {samples_seen: 4, lr: .inf}
    optim.lr: inf: input should be a finite number

optim: {}
    optim: give exactly one of samples_seen (here None) and epochs (here None); null takes one back

optim: {samples_seen: 4, epochs: 1}
    optim: give exactly one of samples_seen (here 4) and epochs (here 1.0); null takes one back

optim: {samples_seen: 4, cooldown: 0.1}
    optim: cooldown 0.1 with schedule 'cosine', which falls all along; allowed: constant, wsd

optim: {samples_seen: 4, schedule: wsd, cooldown: 0}
    optim: cooldown 0 with schedule 'wsd'; allowed: above 0, or 'constant'

optim: {samples_seen: 4, schedule: constant, final_lr: 0.1}
    optim: final_lr 0.1 with a constant rate that never falls; allowed: with a cooldown above 0

optim: {samples_seen: 4, schedule: wsd, warmup: 0.9}
    optim: warmup 0.9 and cooldown 0.2 are more than all of training; allowed: at most 1 together

model: (left out)
    recipe: give either a model section, or init.from to start from an artefact's model

init: {from: runs/x}
    recipe: give either a model section, or init.from to start from an artefact's model

model: {image: x, text: {width: 33, heads: 2}}
    model.text: width 33 must be a multiple of heads 2

augment: {crop_scale: [0.9, 0.1]}
    augment: crop_scale (0.9, 0.1): allowed is 0 < low <= high <= 1

{augment: {patch_dropout: 0.5}, adapt: {kind: probe}}
    recipe: augment.patch_dropout: 0.5: a locked image tower sees all patches;
    allowed: 0, or an image tower that learns

{augment: {patch_dropout: 0.5}, adapt: {kind: lora, towers: [text]}}
    recipe: augment.patch_dropout: 0.5: a locked image tower sees all patches;
    allowed: 0, or an image tower that learns

{regularise: {start: auto}, adapt: {kind: lora}}
    recipe: regularise: with adapt.kind 'lora', whose new weights have no start worth keeping;
    allowed: full, probe, projection

distill: {from: a/b, weight: 0}
    recipe: distill: weight and features are 0; allowed: one above 0, or null

{distill: {from: a/b, features: 1}, objective: {kind: classify}}
    recipe: distill.features: 1.0 with objective.kind 'classify', which compares class
    probabilities; allowed: 0

evaluate: [{kind: retrieval}, {kind: retrieval}]
    recipe: evaluate: two items are named retrieval; give each a name

data: {kind: shards, captions: ["{a[0]}"]}
    data.captions: caption template '{a[0]}': a field is a column's name in braces, not {a[0]}

data: {kind: shards, captions: ["{a"]}
    data.captions: caption template '{a': expected '}' before end of string

objective: {kind: clip, templates: [a photo]}
    objective.templates.0: 'a photo' lacks {}, where the class name goes

objective: {kind: classify, templates: [a photo]}
    objective.templates.0: 'a photo' lacks {}, where the class name goes
""")


@pytest.mark.parametrize(("changes", "expected"), [*UNKNOWN, *REFUSED, *BEYOND_JSON_SCHEMA])
def test_what_is_wrong_is_told_by_key_and_value_with_what_is_allowed(
    changes: dict[str, Any], expected: str
) -> None:
    assert problems(**changes) == [expected]


def test_all_problems_are_told_at_once() -> None:
    assert problems(seed=-1, optim={**OPTIM, "warmup": 2}, run={"keep": 0}) == [
        "seed: -1: input should be greater than or equal to 0",
        "optim.warmup: 2: input should be less than 1",
        "run.keep: 0: input should be greater than or equal to 1",
    ]
    assert problems(init={"form": "x"}, model=OUT) == [
        "init.from: missing",
        "init.form: unknown key; did you mean 'from'?",
    ]


def test_every_member_of_a_union_that_could_be_meant_is_told_of() -> None:
    number, word = problems(run={"workers": "many"})
    assert number.startswith("run.workers: 'many': input should be a valid integer")
    assert word == "run.workers: 'many': not allowed; allowed: auto"


def test_nothing_changes_after_loading() -> None:
    recipe = parse_recipe(values(), where="x")
    with pytest.raises(ValueError, match="frozen"):
        recipe.optim.lr = 1.0  # type: ignore[misc]


# --- the JSON schema ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = recipe_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", BUILTIN)
def test_the_json_schema_takes_every_builtin_recipe(
    validator: jsonschema.Draft202012Validator, name: str
) -> None:
    path = builtin_recipes()[name]
    for text in (path.read_text(), dump_recipe(load_recipe(path))):
        assert [error.message for error in validator.iter_errors(read_yaml(text))] == []


@pytest.mark.parametrize(("changes", "_message"), [*UNKNOWN, *REFUSED])
def test_the_json_schema_refuses_what_loading_refuses(
    validator: jsonschema.Draft202012Validator, changes: dict[str, Any], _message: str
) -> None:
    assert validator.is_valid(values())
    assert not validator.is_valid(values(**changes))


def test_the_json_schema_describes_its_keys() -> None:
    definitions = recipe_json_schema()["$defs"]
    for section, key in [("OptimSection", "global_batch"), ("ArchModel", "pretrained")]:
        assert definitions[section]["properties"][key]["description"].strip()


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
