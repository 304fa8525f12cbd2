"""Recipes: what is refused and in which words, and the JSON schema."""

from typing import Any

import jsonschema
import pytest
import yaml

from ptft.recipe import (
    builtin_recipes,
    dump_recipe,
    load_recipe,
    recipe_json_schema,
)
from ptft.recipe.load import load_any, parse_recipe
from ptft.recipe.yaml_text import read_yaml
from tests.support.recipe_values import BUILTIN, OPTIM, OUT, problems, values


def cases(text: str) -> list[Any]:
    """Sections as YAML, each followed by the indented message that they deserve."""
    found = []
    for block in text.strip().split("\n\n"):
        section, *message = block.splitlines()
        expected = " ".join(line.strip() for line in message)
        found.append(pytest.param(yaml.safe_load(section), expected, id=expected))
    return found


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
    allowed: init_bias, init_temperature, kind, matryoshka, max_logit_scale, multi_positive,
    templates

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
    (allowed: boxes, folder, mixture, scenes, shards, table)

data: {train: a.tar}
    data: needs a kind; allowed: boxes, folder, mixture, scenes, shards, table

data: scenes
    data: 'scenes': allowed: a section, that is keys with values

data: {kind: shards, train: [a, 1]}
    data.train.1: 1: input should be a valid string

objective: {kind: clap}
    objective.kind: 'clap': not allowed; did you mean 'clip'?
    (allowed: classify, clip, detect, self_supervised, siglip)

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
    (allowed: classify, detect, probe, retrieval, zero_shot)

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
{objective: {kind: detect, places: 4}, evaluate: [{kind: detect}]}
    recipe: evaluate.0.nms: null with objective.places: 4, which tells a thing as often; allowed: an
    IoU, 0.5 as a rule

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


COMPARED = [name for name in builtin_recipes() if name.startswith("compare/")]


@pytest.mark.parametrize("name", COMPARED)
def test_the_json_schema_takes_every_builtin_comparison(
    validator: jsonschema.Draft202012Validator, name: str
) -> None:
    path = builtin_recipes()[name]
    # init.from is given on the command line
    shown = load_any(path)
    for text in (path.read_text(), dump_recipe(shown)):
        assert [error.message for error in validator.iter_errors(read_yaml(text))] == []
    values = shown.model_dump(mode="json", by_alias=True)
    values["compare"]["budgts"] = [1]
    assert not validator.is_valid(values)
