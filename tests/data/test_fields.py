"""Templates, labels and class names."""

import json
from pathlib import Path

import numpy as np
import pytest

from ptft.data.fields.classes import load_classes
from ptft.data.fields.templates import Templates
from ptft.errors import RecipeError, SampleError


@pytest.mark.parametrize(
    ("templates", "fields", "captions"),
    [
        (["{txt}"], {"txt": " a cat\n"}, ("a cat",)),
        (["{name}, {tags}"], {"name": "cat", "tags": ["pet", "fur"]}, ("cat, pet, fur",)),
        (["{tags}"], {"tags": ["pet", " ", "fur", None]}, ("pet", "fur")),
        (["{tags}"], {"tags": np.array(["pet", "fur"])}, ("pet", "fur")),
        (["{a}", "{b}"], {"a": "x", "b": "y"}, ("x", "y")),
        (["{a}", "{b}"], {"a": "x", "b": "x"}, ("x",)),
        (["{n} of {{them}}"], {"n": 3}, ("3 of {them}",)),
        (["{name}, {tags}"], {"name": "cat", "tags": []}, ("cat",)),
        (["{tags}", "{name}"], {"name": "cat", "tags": []}, ("cat",)),
        (["a plain one"], {}, ("a plain one",)),
    ],
)
def test_templates_are_filled(
    templates: list[str], fields: dict[str, object], captions: tuple[str, ...]
) -> None:
    assert Templates(templates, lenient=False).fill(fields, "s", labelled=False) == captions


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "x", "cls": "3"},
            r"s: no field 'txt' for the caption '{txt}'; fields: cls, name",
        ),
        ({"txt": "  "}, r"s: no field 'txt' .*; fields: none"),
        ({"txt": float("nan")}, r"no field 'txt'"),
        ({"txt": {"a": 1}}, r"s: caption '{txt}': field 'txt' is dict; allowed: a text"),
        ({"txt": []}, r"s: its captions are empty lists"),
    ],
)
def test_what_cannot_be_filled_is_an_error_that_lists_the_fields(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(SampleError, match=message):
        Templates(["{txt}"], lenient=False).fill(fields, "s", labelled=True)
    with pytest.raises(SampleError, match=message):
        Templates(["{txt}"], lenient=True).fill(fields, "s", labelled=False)


def test_a_labelled_sample_may_do_without_the_default_caption() -> None:
    assert Templates(["{txt}"], lenient=True).fill({"cls": "3"}, "s", labelled=True) == ()


def test_class_names_are_read_from_lists_and_files(tmp_path: Path) -> None:
    assert load_classes([" a ", "b"]) == ["a", "b"]
    (tmp_path / "c.txt").write_text("tea pot\ncafé\n\n", encoding="utf-8")
    assert load_classes(str(tmp_path / "c.txt")) == ["tea pot", "café"]
    (tmp_path / "c.txt").write_text("tea pot\n\ncafé\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="class 1 is ''; allowed: a name"):  # all behind it move
        load_classes(str(tmp_path / "c.txt"))
    path = tmp_path / "c.json"
    path.write_text(json.dumps(["x", "y"]))
    assert load_classes(str(path)) == ["x", "y"]
    path.write_text(json.dumps([{"id": 1, "name": "n1"}, {"id": 0, "name": "n0", "text": "t0"}]))
    assert load_classes(str(path)) == ["t0", "n1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"a": 1}', "dict; allowed: a list"),
        ('["a", "a"]', "'a' comes twice"),
        ('["a", 3]', "class 1 is 3; allowed: a name"),
        ('[{"id": 1, "name": "a"}]', "ids; allowed: 0 to 0, each once"),
        ("[]", "it is empty"),
    ],
)
def test_what_is_no_list_of_classes_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(RecipeError, match=rf"data\.classes: '.*classes\.json': {message}"):
        load_classes(str(path))
    with pytest.raises(RecipeError, match="no such file"):
        load_classes(str(tmp_path / "other.txt"))
