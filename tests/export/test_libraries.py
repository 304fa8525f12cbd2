"""What transformers and timm make of a model folder: pictures and texts in, the model's embeddings
out, through nothing but each library's own loaders."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download
from PIL import Image
from tokenizers import Tokenizer

from ptft.artifact import FolderFiles, read_json
from ptft.compat import import_open_clip, import_timm
from ptft.errors import ParityError
from ptft.export import library_files
from ptft.export.library_files import write_library_files
from ptft.export.model_files import write_model_files
from ptft.export.parity import make_golden
from ptft.export.transformers_model import Converted, convert
from ptft.model import DualEncoder, load_model
from ptft.model.adapt import attach
from ptft.preprocess import TextTokenizer
from ptft.recipe import PrefixAdapt, SiglipObjective
from tests.support import tiny
from tests.support.architectures import small_model, small_timm
from tests.support.hub_parts import REPO_ID, TOKEN
from tests.support.loopback_hub import LoopbackHub

CLASSES = {
    "clip": "CLIPModel",
    "siglip": "SiglipModel",
    "metaclip": "MetaClip2Model",
    "convnext": "VisionTextDualEncoderModel",
    "bert": "VisionTextDualEncoderModel",
}
TEXTS = [
    "a photo of a cat",
    "a dog’s “red” circle",
    "caf&eacute; &amp; a photo &amp;lt; 4 &#39;",
    "The Red, circle: to_the LEFT!  of a blue square",
    "",
    "dog " * 40,
    "a cat <|endoftext|> dog",  # plain text to open_clip
    "a cat<END_OF_TEXT> dog",
    "!<end_of_text><end_of_text>a <start_of_text>",
    "a photo &lt;end_of_text&gt;&lt;start_of_text&gt; of a cat",
    "a cat</s> <s>red</s> circle",  # of many other vocabularies
    "[SEP] a [MASK] cat end of text",
]


def build(kind: str, work: Path) -> DualEncoder:
    match kind:
        case "clip":
            return tiny.build(tiny.arch_section("tiny-vit"))
        case "siglip":
            return small_model("ViT-B-16-SigLIP2", work)
        case "metaclip":
            return small_model("ViT-H-14-worldwide", work)
        case "convnext":
            return tiny.build(tiny.arch_section("tiny-convnext"))
        case _:
            folder = tiny.hf_text_folder(work / "text")
            return tiny.build(
                tiny.hf_section(folder, image="test_vit", text_pool="cls_pooler", image_size=160)
            )


class Folder:
    """A model folder without its ONNX files, which take seconds."""

    def __init__(self, kind: str, work: Path) -> None:
        with small_timm():
            self.model = build(kind, work)
            self.path = work / "out"
            self.path.mkdir()
            write_model_files(self.model, self.path)
            self.found = write_library_files(self.model, make_golden(self.model), self.path)


@pytest.fixture(scope="module", params=CLASSES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    made = Folder(request.param, tmp_path_factory.mktemp(request.param))
    assert made.found["transformers"].loads == CLASSES[request.param]
    return made


@pytest.fixture
def folder(made: Folder) -> Iterator[Folder]:
    with small_timm():  # for a test alone: others build timm's networks as they are
        yield made


def pictures(model: DualEncoder) -> list[Image.Image]:
    """Of the model's own size, so that no resize comes between (its pixels differ by library)."""
    height, width = model.spec.preprocess.size
    noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


@torch.no_grad()
def embed(model: DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.stack([model.spec.preprocess(picture) for picture in pictures(model)])
    image, text = model(torch.from_numpy(pixels), torch.from_numpy(model.spec.tokenizer(TEXTS)))
    assert image is not None
    assert text is not None
    return image, text


@torch.no_grad()
def test_transformers_loads_it(folder: Folder) -> None:
    from transformers import AutoModel, AutoProcessor, AutoTokenizer

    model = AutoModel.from_pretrained(folder.path).eval()
    assert type(model).__name__ == folder.found["transformers"].loads
    processor = AutoProcessor.from_pretrained(folder.path)
    batch = processor(
        text=TEXTS,
        images=pictures(folder.model),
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    ours = torch.from_numpy(folder.model.spec.tokenizer(TEXTS))
    assert batch["input_ids"].shape == ours.shape
    used = torch.from_numpy(folder.model.spec.tokenizer.lengths(ours.numpy()))
    for row, right, length in zip(batch["input_ids"], ours, used, strict=True):
        assert row[:length].tolist() == right[:length].tolist()
    found = model(**batch)
    image, text = embed(folder.model)
    torch.testing.assert_close(found.image_embeds, image, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text_embeds, text, atol=1e-5, rtol=0)
    bias = 0.0 if folder.model.logit_bias is None else folder.model.logit_bias
    logits = folder.model.logit_scale.exp() * image @ text.T + bias
    torch.testing.assert_close(found.logits_per_image, logits, atol=1e-3, rtol=0)
    assert AutoTokenizer.from_pretrained(folder.path).model_max_length == ours.shape[1]


@torch.no_grad()
def test_timm_loads_it_from_the_folder_and_from_the_hub(
    folder: Folder, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tower with its projection, and the pictures as its own transform makes them."""
    timm = import_timm()
    weights = {"source": "", "file": str(folder.path / FolderFiles.OPEN_CLIP_WEIGHTS)}
    local = timm.create_model(
        f"local-dir:{folder.path}", pretrained=True, pretrained_cfg_overlay=weights
    )
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo(REPO_ID)
    api.upload_folder(repo_id=REPO_ID, folder_path=folder.path, allow_patterns=["*.json", "open_*"])
    there = partial(hf_hub_download, endpoint=hub.url, token=TOKEN)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", there)
    remote = timm.create_model(f"hf_hub:{REPO_ID}", pretrained=True, cache_dir=tmp_path)

    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=local))
    pixels = torch.stack([transform(picture) for picture in pictures(folder.model)])
    expected = embed(folder.model)[0]
    for tower in (local, remote):
        found = torch.nn.functional.normalize(tower.eval()(pixels), dim=-1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_open_clip_and_ptft_are_not_disturbed(folder: Folder) -> None:
    again = load_model(folder.path)
    assert all(torch.equal(a, b) for a, b in zip(embed(again), embed(folder.model), strict=True))
    if "hf_model_name" in folder.model.spec.config["text_cfg"]:
        return  # open_clip wants to run beside it, see test_export_folder
    open_clip = import_open_clip()
    theirs, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder.path}")
    pixels = torch.stack([transform(picture) for picture in pictures(folder.model)])
    with torch.no_grad():
        found = theirs.eval().encode_image(pixels, normalize=True)
    torch.testing.assert_close(found, embed(folder.model)[0], atol=1e-6, rtol=0)


def test_the_tokenizer_says_what_it_said(folder: Folder) -> None:
    """The cleaning that is put into ``tokenizer.json`` changes nothing that is clean already."""
    tokenizer = folder.model.spec.tokenizer
    again = TextTokenizer(folder.path / FolderFiles.TOKENIZER, **tokenizer.kwargs())
    texts = [*TEXTS, "a <pad> cat", "A &amp; B_c: “d” … É 3.14 [x] \\ ^ - ]", " \t\n", "ΑΣ İ ﬁ"]
    np.testing.assert_array_equal(again(texts), tokenizer(texts))


def test_the_tokenizer_alone_finds_the_same_marks(folder: Folder) -> None:
    """Through the ``tokenizers`` library; written padding, which a mask may hide, has its id."""
    tokenizer = folder.model.spec.tokenizer
    theirs = Tokenizer.from_file(str(folder.path / FolderFiles.TOKENIZER))
    theirs.enable_truncation(tokenizer.context_length)
    texts = [*TEXTS, "a <pad> cat", "</s>", "<pad><pad>", "<end_of_text>", "</s>red"]
    for text, row in zip(texts, tokenizer(texts), strict=True):
        ids = theirs.encode(text).ids
        assert ids == row[: len(ids)].tolist(), text
        assert set(row[len(ids) :].tolist()) <= {tokenizer.pad_id}, text


def test_what_is_behind_an_end_mark_is_lost_where_the_tower_says_so(folder: Folder) -> None:
    tokenizer = folder.model.spec.tokenizer
    end = "<end_of_text>" if tokenizer.kind == "clip" else "</s>"
    tokens = tokenizer([f"a cat {end} dog", f"a cat {end} red", "a cat dog"])
    with torch.no_grad():
        dog, red, whole = folder.model.encode_text(torch.from_numpy(tokens))
    assert not torch.allclose(dog, whole, atol=1e-5)
    assert torch.equal(dog, red) is folder.model.spec.text_stops
    if folder.model.spec.text_stops:
        assert tokenizer.ends_early(tokens).tolist() == [True, True, False]


def build_other(kind: str, work: Path) -> DualEncoder:
    match kind:
        case "bias":
            return tiny.build(tiny.arch_section("tiny-vit"), SiglipObjective())
        case "prefix":
            model = tiny.build(tiny.arch_section("tiny-vit"))
            attach(model, PrefixAdapt(), seed=0)
            return model.eval()
        case "pooled":
            return tiny.build(tiny.hf_section(tiny.hf_text_folder(work / "text", "roberta")))
        case "mlp":
            return tiny.build(tiny.towers_section(image_projection="mlp"))
        case _:
            return tiny.build(tiny.arch_section(kind))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bias", "no logit bias"),
        ("prefix", "no place for a prefix adapter"),
        ("pooled", r"pools open_clip's way \(MeanPooler\)"),
        ("mlp", "more than a matrix"),
        ("tiny-resnet", "ModifiedResNet"),
        ("tiny-siglip", "does not pool by attention"),
    ],
)
def test_what_no_class_computes_is_said_and_left_out(
    kind: str, reason: str, tmp_path: Path
) -> None:
    model = build_other(kind, tmp_path)
    (tmp_path / "out").mkdir()
    write_model_files(model, tmp_path / "out")
    found = write_library_files(model, make_golden(model), tmp_path / "out")["transformers"]
    assert found.loads is None
    assert re.search(reason, str(found.reason)), found.reason
    assert not (tmp_path / "out" / FolderFiles.TRANSFORMERS_WEIGHTS).exists()
    config = tmp_path / "out" / FolderFiles.CONFIG
    assert not config.exists() or "model_type" not in read_json(config)


def test_a_tower_that_reads_padding_needs_the_same_padding() -> None:
    """CLIP's vocabulary fills texts with zeros here, and with its end mark in transformers."""
    model = tiny.build(tiny.arch_section("tiny-padded-siglip"))
    found = convert(model)
    assert isinstance(found, str) and "reads padding" in found
    names = {**model.spec.tokenizer_config, "pad_token": "!"}  # what stands at zero
    model.spec = model.spec.with_(tokenizer_config=names)
    exact = convert(model)
    assert isinstance(exact, Converted) and exact.name == "SiglipModel"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"text_config": {"hidden_act": "gelu"}}, "text embeddings differ from the model's by"),
        (
            {"vision_config": {"layer_norm_eps": 1e-3}},
            "image embeddings differ from the model's by",
        ),
        ("logit_scale", "logits differ"),
        ("text_projection.weight", r"missing keys: text_projection\.weight"),
        ("left over", "unexpected keys: left over"),
    ],
)
def test_a_conversion_that_is_not_exact_is_refused(
    spoil: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.build(tiny.arch_section("tiny-vit"))
    right = convert(model)
    assert isinstance(right, Converted)
    config, state = dict(right.config), dict(right.state)
    if isinstance(spoil, dict):
        for key, values in spoil.items():
            config[key] = {**config[key], **values}
    elif spoil == "logit_scale":
        state[spoil] = state[spoil] + 0.01
    elif spoil in state:
        del state[spoil]
    else:
        state[spoil] = torch.zeros(1)
    wrong = replace(right, config=config, state=state)
    monkeypatch.setattr(library_files, "convert", lambda model: wrong)
    write_model_files(model, tmp_path)
    with pytest.raises(ParityError, match=message):
        write_library_files(model, make_golden(model), tmp_path)
