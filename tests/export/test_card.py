"""The card's front matter and what it says of the data."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from ptft.artifact import ModelInfo
from ptft.export.card import Kept, make_card, read_kept
from ptft.model.spec import ModelSpec
from ptft.preprocess import ImagePreprocess, TextTokenizer, clip_bpe_json
from ptft.preprocess.decoding import OLDER
from ptft.recipe import Recipe
from ptft.recipe.load import parse_recipe

OPTIM = {"samples_seen": 1000, "global_batch": 8}


def card(values: dict[str, Any] | None, kept: Kept | None = None, **changes: Any) -> str:
    recipe: Recipe | None = None
    if values is not None:
        recipe = parse_recipe({"name": "x", "optim": OPTIM, **values}, where="test")
    tokenizer = TextTokenizer(clip_bpe_json(), context_length=77)
    preprocess = changes.get("preprocess", ImagePreprocess())
    spec = ModelSpec("ViT-B-32", {"embed_dim": 512}, preprocess, tokenizer)
    info = ModelInfo(
        name="birds",
        task="embed",
        embed_dim=512,
        context_length=77,
        image_size=(224, 224),
        logit_scale=100.0,
        logit_bias=0.0,
        recipe_digest="",
        weights_digest="",
        tokenizer=tokenizer.kwargs(),
    )
    metrics = {
        "evaluation": changes.get("evaluation", {}),
        "parity": {},
        "libraries": {},
        "left_out": {},
        "not_measured": "no data",
        "pixels": {"largest": 0, "share": 0},
    }
    return make_card(
        info, spec, recipe, metrics, [], licence=changes.get("licence"), kept=kept or Kept()
    )


def front(text: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)\n---\n", text, re.S)
    assert match is not None
    return yaml.safe_load(match[1])


def test_the_commands_turn_pictures_as_the_model_does() -> None:
    text = card(None)
    assert "made for RGB of 8 bits: upright by EXIF, deeper samples scaled to 8 bits" in text
    older = card(None, preprocess=ImagePreprocess(reading=OLDER))
    assert "made for RGB of 8 bits: as the pixels are stored, EXIF ignored, deeper" in older
    assert "exif_transpose" not in older and "ImageOps" not in older


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"model": {"name": "ViT-B-32"}}, None),
        (
            {"model": {"name": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}},
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        ),
        ({"model": {"name": "ViT-B-32", "pretrained": "org/repo@v1"}}, "org/repo"),
        ({"init": {"from": "org/repo@v1.2"}}, "org/repo"),
        ({"init": {"from": "runs/my-own"}}, "runs/my-own"),  # its form is a Hub id's
        (
            {"model": {"image": "test_vit", "image_weights": "org/image", "text": "org/text"}},
            ["org/image", "org/text"],
        ),
        (
            {"model": {"image": "test_vit", "text": "org/text", "text_weights": False}},
            None,
        ),
    ],
)
def test_the_base_model_is_a_repository_or_nothing(
    model: dict[str, Any], expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if expected == "runs/my-own":
        (tmp_path / "runs" / "my-own").mkdir(parents=True)
        expected = None
    assert front(card({**model, "data": {"kind": "scenes"}})).get("base_model") == expected


def test_licence_only_where_it_is_known() -> None:
    scenes = {"model": {"name": "ViT-B-32"}, "data": {"kind": "scenes"}}
    assert "license" not in front(card(scenes))
    assert front(card(scenes, licence="apache-2.0"))["license"] == "apache-2.0"
    kept = Kept(front={"license": "mit", "tags": ["birds", "onnx"], "language": "en"})
    again = front(card(scenes, kept))
    assert (again["license"], again["language"]) == ("mit", "en")
    assert again["tags"].count("onnx") == 1
    assert "birds" in again["tags"]
    assert front(card(scenes, kept, licence="apache-2.0"))["license"] == "apache-2.0"


def test_data_is_named_without_its_place() -> None:
    shards = ["/home/me/private/birds-{00..09}.tar", "/mnt/other.tar"]
    data = {"kind": "shards", "train": shards}
    text = card({"model": {"name": "ViT-B-32"}, "data": data})
    assert "birds-{00..09}.tar, other.tar" in text
    assert "private" not in text
    data = {"kind": "table", "train": "org/birds:train", "classes": ["a", "b"]}
    text = card({"model": {"name": "ViT-B-32"}, "data": data})
    assert front(text)["datasets"] == ["org/birds"]


def test_a_card_spoilt_by_hand_gives_what_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    assert read_kept(path) == Kept()
    path.write_text("---\nlicense: [mit\n---\n<!-- keep a -->\ntext\n<!-- /keep a -->\n")
    assert read_kept(path) == Kept({"a": "text\n"}, {})
    path.write_text("no front matter, and a block without end\n<!-- keep a -->\n")
    assert read_kept(path) == Kept()
    assert "No recipe is recorded." in card(None)


def test_measured_figures_are_what_the_hub_reads() -> None:
    """Held against huggingface_hub's own reader of a card."""
    table = {"kind": "table", "train": "org/birds:train", "val": "org/birds@v2:val"}
    values = {
        "model": {"name": "ViT-B-32"},
        "data": {"kind": "scenes"},
        "evaluate": [
            {"kind": "retrieval", "ks": [1], "split": "test"},
            {"kind": "zero_shot", "name": "birds", "data": {**table, "classes": ["a", "b"]}},
            {"kind": "probe"},
        ],
    }
    evaluation = {
        "retrieval": {"i2t_recall@1": 0.25, "t2i_recall@1": 0.5, "images": 64, "skipped": 0},
        "birds": {"top1": 0.75, "ece": 0.1, "chance": 0.5},
        "of-a-recipe-before": {"top1": 1.0},
    }
    text = card(values, evaluation=evaluation)
    data = ModelCard(text).data
    assert data.model_name == "birds" and data.eval_results is not None
    found = [
        (r.task_type, r.dataset_type, r.dataset_split, r.metric_type, r.metric_name, r.metric_value)
        for r in data.eval_results
    ]
    assert found == [
        ("image-text-retrieval", "scenes", "test", "recall", "i2t_recall@1", 0.25),
        ("image-text-retrieval", "scenes", "test", "recall", "t2i_recall@1", 0.5),
        ("zero-shot-image-classification", "org/birds", "val", "accuracy", "top1", 0.75),
    ]
    stale = Kept(front={"model-index": front(text)["model-index"]})
    assert "model-index" not in front(card(values, stale))
