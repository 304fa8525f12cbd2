"""A recipe of a stranger is refused in one line, before it takes time, memory or the stack."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from braceexpand import braceexpand
from hypothesis import given, settings
from hypothesis import strategies as st

from ptft.errors import RecipeError
from ptft.recipe.braces import MAX_TEXTS, count_texts
from ptft.recipe.load import load_any, parse_recipe
from ptft.recipe.paths import expand_braces, expand_paths, is_hub_id
from ptft.recipe.yaml_text import read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)
SMALL = {
    "name": "a",
    "model": {"name": "ViT-B-32"},
    "data": {"kind": "scenes"},
    "optim": {"samples_seen": 8},
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 5000, "nested too deep"),
        ("a: " + "{a: " * 5000, "nested too deep"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper than 64 levels"),
        ("- " * 3000 + "a", "nested"),
        (BOMB, "more than 400000 values, aliases counted each time"),
        (MERGED, "more than 400000 values, aliases counted each time"),
        ("a: &a [*a]", "a value that holds itself"),
        ("a: &a {b: *a}", "a value that holds itself"),
        ("seed: " + "9" * 6000, "a value that cannot be: Exceeds the limit"),
        ("seed: 0x" + "f" * 6000, "seed: a whole number of 24000 bits"),
        ("seed: 99999999999999999999", "seed: a whole number of 67 bits; allowed: below 2^63"),
        ("name: 2023-02-29", "a value that cannot be: day is out of range"),
        ("x: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ('name: "a\\0b"', "name: 'a\\x00b': a NUL character; allowed: plain text"),
        ('data: {train: ["x", "a\\0b"]}', "data.train.1: 'a\\x00b': a NUL character"),
        ('"a\\0b": 1', "recipe: a key with a NUL character"),
        ("x: " + "y" * (4 << 20), "allowed: at most 4194304"),
        ("? [a]\n: b", "not YAML"),
        ("optim: {lr: .nan}", "optim.lr"),
        ("optim: {lr: 1e999}", "optim.lr"),
        ("data: {cache_gb: .inf, kind: shards}", "data.cache_gb"),
    ],
)
def test_a_document_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_any(path)
    assert said in str(caught.value)
    assert all(line.startswith(str(path)) for line in str(caught.value).splitlines())
    assert len(str(caught.value)) < 2000


def test_half_a_character_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"name: .*: half a character"):
        parse_recipe({**SMALL, "name": "a\ud800"}, "test")


def test_what_is_within_bounds_is_read_as_before() -> None:
    text = yaml.safe_dump({"a": list(range(6_000)), "b": {"c": [1.5, None, True, "é"]}})
    assert read_yaml(text) == yaml.safe_load(text)
    assert read_yaml("a: &a {lr: 1e-4, x: [1, 2]}\nb: *a\n")["b"] == {"lr": 1e-4, "x": [1, 2]}
    assert read_yaml("") is None
    nested: Any = 1
    for _ in range(60):
        nested = [nested]
    assert read_yaml(json.dumps(nested)) == nested


@pytest.mark.parametrize(
    "pattern",
    [
        "s-{0..99999999}.tar",
        "s-{0..9999}{0..9999}.tar",
        "s-{a,{0..9999999}}.tar",
        "{0..999999}" * 3,
        "{,}" * 40,
        "{9..-99999999999}",
        "{0..9999999..3}",
        "s3://bucket/{0..99999999}.tar",
    ],
)
def test_a_pattern_of_too_many_paths_is_refused(pattern: str) -> None:
    with pytest.raises(RecipeError, match=r"data\.train: .*: more than 250,000 paths; allowed"):
        expand_braces(pattern, "data.train")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{" * 10 + "a,b" + "}" * 10, "nested deeper than 8 levels"),
        ("{a,b}" * 65, "65 braces; allowed: at most 64"),
        ("a" * 20_000, "20000 characters"),
        ("{1..3..0}", "a range in steps of 0"),
        ("{0.." + "9" * 5000 + "}", "more than 18 digits"),
        ("{a", "unbalanced braces"),
        ("a\0b", "no such file or folder"),
        ("~nobody-of-that-name/x", "allowed: a path that can be read here"),
        ("x" * 300, "allowed: a path that can be read here"),
        ("{a,b}" + "x" * 300, "allowed: a path that can be read here"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_in_one_line(pattern: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        expand_paths(pattern, "data.train")
    assert said in str(caught.value) and str(caught.value).startswith("data.train: ")
    assert len(str(caught.value)) < 500


def test_as_many_as_the_largest_set_has_are_taken() -> None:
    assert len(expand_braces("laion-{000000..231348}.tar", "data.train")) == 231_349 < MAX_TEXTS


_PIECES = (
    "{0..3}",
    "{a,b{1..3}}",
    "{b..d}",
    "x",
    "{{1,2},3}",
    "{x}",
    "{}",
    ",",
    "{5..1..2}",
    "\\{",
)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=4).map("".join))
def test_texts_are_counted_as_they_are_made(pattern: str) -> None:
    assert count_texts(pattern) == len(list(braceexpand(pattern)))


def test_a_name_that_no_file_can_have_is_no_path() -> None:
    assert not is_hub_id("a/" + "b" * 5000)


def test_problems_by_the_hundred_are_counted() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**SMALL, "evaluate": [0] * 500}, "test")
    lines = str(caught.value).splitlines()
    assert len(lines) == 41 and lines[-1] == "test: and 460 problems more"
