"""Texts that reach a transformers text tower as they are, and what then loads the model."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from ptft.artifact import FolderFiles, read_json
from ptft.errors import ModelError, RecipeError
from ptft.export.library_files import write_library_files
from ptft.export.model_files import portable, write_model_files
from ptft.export.parity import make_golden
from ptft.model import load_model
from ptft.model.tokenizers import build_tokenizer
from ptft.preprocess import TextTokenizer
from ptft.recipe.load import parse_recipe, recipe_digest
from tests.support import tiny

TEXTS = ["a &amp; b &#233;", "schÃ¶n “cat”", "  two  lines\n", "&lt;/s&gt; </s> a"]


def test_none_is_the_towers_own_tokenizer_everywhere(tmp_path: Path) -> None:
    source = tiny.hf_text_folder(tmp_path / "model")
    model = tiny.build(tiny.hf_section(source, image="test_vit", image_size=160, text_clean="none"))
    assert "text_clean: none" in str(model.spec.open_clip_reason)
    own = Tokenizer.from_file(str(source / "tokenizer.json"))
    own.enable_truncation(16)
    own.enable_padding(length=16, pad_id=1, pad_token="<pad>")
    right = np.array([own.encode(text).ids for text in TEXTS])
    np.testing.assert_array_equal(model.spec.tokenizer(TEXTS), right)
    cleaned = tiny.build(tiny.hf_section(source)).spec.tokenizer(TEXTS)
    assert (cleaned != right).any(axis=1).tolist() == [True, True, False, True]

    model.spec = portable(model.spec)
    out = tmp_path / "out"
    out.mkdir()
    write_model_files(model, out)
    found = write_library_files(model, make_golden(model), out)
    assert not (out / FolderFiles.OPEN_CLIP_CONFIG).exists()
    assert found["sentence-transformers"].loads == "Router"
    assert found["timm"].loads is None
    np.testing.assert_array_equal(load_model(out).spec.tokenizer(TEXTS), right)
    router = out / read_json(out / "modules.json")[0]["path"]
    for path in (out, router / "text_0_Transformer"):
        travelled = TextTokenizer(path / FolderFiles.TOKENIZER, **model.spec.tokenizer.kwargs())
        assert travelled.clean == "none"
        np.testing.assert_array_equal(travelled(TEXTS), right)


def recipe(**values: object) -> str:
    text = {"name": "x", "data": {"kind": "scenes"}, "optim": {"samples_seen": 8}}
    model = {"image": "test_vit", "text": "org/text", **values}
    return recipe_digest(parse_recipe({**text, "model": model}, where="test"))


def test_digests_of_recipes_stay() -> None:
    assert recipe(text_clean="whitespace") == recipe()
    assert recipe(text_clean="none") != recipe()
    text = {"name": "x", "data": {"kind": "scenes"}, "optim": {"samples_seen": 8}}
    model = {"image": "test_vit", "text": "org/text"}
    dumped = parse_recipe({**text, "model": model}, where="test").model_dump()["model"]
    assert "text_clean" not in dumped and dumped["text_pool"] == "mean_pooler"


def test_clips_own_text_tower_has_no_choice() -> None:
    with pytest.raises(RecipeError, match=r"text_clean none .*allowed for CLIP's: whitespace"):
        recipe(text={"width": 32, "heads": 2}, text_clean="none")
    with pytest.raises(ModelError, match="clean: 'none'; allowed: lower, canonicalize"):
        build_tokenizer({"text_cfg": {"tokenizer_kwargs": {"clean": "none"}}})
