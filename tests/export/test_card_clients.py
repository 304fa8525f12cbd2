"""What the card says of the libraries that load the folder, and of those that do not."""

import re
from typing import Any

import pytest
import yaml

from ptft.artifact import FolderFiles, ModelInfo
from ptft.export.card import Kept, make_card
from ptft.model.spec import ModelSpec
from ptft.preprocess import ImagePreprocess, TextTokenizer, clip_bpe_json
from tests.support.tokenizer_json import bert_json

FILES = [FolderFiles.PREPROCESSOR, FolderFiles.OPEN_CLIP_CONFIG]
TOWER = "the text tower pools"


def card(clients: dict[str, dict[str, str]], clean: str = "clip", **text: Any) -> str:
    kind = "hf" if clean == "whitespace" else "clip"
    vocabulary = bert_json() if kind == "hf" else clip_bpe_json()
    tokenizer = TextTokenizer(vocabulary, context_length=16, kind=kind, clean=clean)  # type: ignore[arg-type]
    config = {"embed_dim": 8, "text_cfg": text}
    spec = ModelSpec("tower", config, ImagePreprocess(), tokenizer)
    info = ModelInfo(
        name="birds",
        task="embed",
        embed_dim=8,
        context_length=16,
        image_size=(224, 224),
        logit_scale=100.0,
        logit_bias=0.0,
        recipe_digest="",
        weights_digest="",
        tokenizer=tokenizer.kwargs(),
        clients=clients,
    )
    measured = {
        n: 1e-7 for n, one in clients.items() if one.get("loads") in ("Router", "CLIPModel")
    }
    metrics = {
        "evaluation": {},
        "parity": {},
        "libraries": measured,
        "left_out": {},
        "not_measured": "no data",
        "pixels": {"largest": 0, "share": 0},
    }
    return make_card(info, spec, None, metrics, FILES, licence=None, kept=Kept())


def tags(text: str) -> list[str]:
    match = re.match(r"---\n(.*?)\n---\n", text, re.S)
    assert match is not None
    return yaml.safe_load(match[1])["tags"]


def test_modules_of_its_own_are_shown_and_their_measure_said() -> None:
    text = card(
        {"transformers": {"reason": TOWER}, "sentence-transformers": {"loads": "Router"}},
        "whitespace",
        hf_model_name="x",
    )
    assert f"\ntransformers cannot load it exactly: {TOWER}." in text
    assert "### sentence-transformers" in text and "`modules.json` names a router" in text
    assert "### transformers\n" not in text and "### transformers.js" not in text
    assert "transformers loaded each tower of sentence-transformers' modules alone and" in text
    assert {"sentence-transformers"} == {tag for tag in tags(text) if "transformers" in tag}
    assert "what follows an end" not in text and "entities of HTML 4" in text


def test_a_library_that_cannot_is_named_with_its_reason() -> None:
    none = {"reason": TOWER}
    text = card({"transformers": none, "sentence-transformers": none, "timm": {"reason": "old"}})
    assert f"transformers and sentence-transformers cannot load it exactly: {TOWER}." in text
    assert "timm cannot load it exactly: old." in text
    assert "SentenceTransformer(" not in text and "AutoModel" not in text
    assert not any("transformers" in tag for tag in tags(text))
    assert "entities of HTML 4" not in text  # of whom nobody reads tokenizer.json
    other = card({"transformers": none, "sentence-transformers": {"reason": "no place"}})
    assert "sentence-transformers cannot load it exactly: no place." in other


@pytest.mark.parametrize(
    ("clean", "cfg", "said", "unsaid"),
    [
        ("clip", {}, ["letters are lower-cased", "what follows an end is not read"], []),
        ("clip", {"no_causal_mask": True}, ["are the tokens themselves, everywhere."], ["follows"]),
        ("canonicalize", {}, ["punctuation is dropped"], ["<end_of_text>"]),
        ("whitespace", {}, ["typographic quotes become plain."], ["<end_of_text>", "lower-cased"]),
    ],
)
def test_what_is_done_to_a_text_is_said(
    clean: str, cfg: dict[str, Any], said: list[str], unsaid: list[str]
) -> None:
    loads = {"loads": "CLIPModel"}
    text = card({"transformers": loads, "sentence-transformers": loads}, clean, **cfg)
    assert all(words in text for words in said), text
    assert not any(words in text for words in unsaid)
    assert "prepare_torchvision" in text
    assert "transformers loaded the folder as its CLIPModel and gave the same" in text
    assert {"transformers", "sentence-transformers", "transformers.js"} <= set(tags(text))
