"""Outputs and weights against open_clip's own models of the same architectures."""

import json
from pathlib import Path

import pytest
import torch

from ptft.compat import import_open_clip
from ptft.errors import ModelError
from ptft.model import DualEncoder, load_model, open_clip_state_dict
from ptft.recipe import SiglipObjective
from tests.support import tiny

KINDS = ["tiny-vit", "tiny-resnet", "tiny-convnext", "tiny-siglip", "towers", "bert", "roberta"]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    kind = request.param
    if kind == "towers":
        return tiny.build(tiny.towers_section())
    if kind in ("bert", "roberta"):
        folder = tiny.hf_text_folder(tmp_path_factory.mktemp(kind), kind)
        pool = "cls_pooler" if kind == "bert" else "mean_pooler"
        projection = "mlp" if kind == "bert" else "linear"
        return tiny.build(tiny.hf_section(folder, text_pool=pool, text_projection=projection))
    objective = SiglipObjective() if kind == "tiny-siglip" else None
    return tiny.build(tiny.arch_section(kind), objective)


def exported(model: DualEncoder, folder: Path) -> Path:
    """The files of open_clip alone, as an export writes them."""
    from safetensors.torch import save_file

    config = model.spec.open_clip_config
    assert config is not None
    values = {"model_cfg": config, "preprocess_cfg": model.spec.preprocess.to_config()}
    (folder / "open_clip_config.json").write_text(json.dumps(values), encoding="utf-8")
    state = {key: value.contiguous() for key, value in open_clip_state_dict(model).items()}
    save_file(state, folder / "open_clip_model.safetensors")
    model.spec.tokenizer.save(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(dict(model.spec.tokenizer_config)), encoding="utf-8"
    )
    return folder


@torch.no_grad()
def test_open_clip_loads_the_export(model: DualEncoder, tmp_path: Path) -> None:
    """No custom code, every weight used, equal outputs, pixels and tokens."""
    open_clip = import_open_clip()
    from PIL import Image

    folder = exported(model, tmp_path)
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    theirs.eval()
    images, tokens = tiny.pictures(model), tiny.tokens(model)
    torch.testing.assert_close(
        model.encode_image(images), theirs.encode_image(images), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        model.encode_text(tokens), theirs.encode_text(tokens), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(model.logit_scale[0], theirs.logit_scale)
    assert (model.logit_bias is None) == (theirs.logit_bias is None)
    image_bd, text_bd = model(images, tokens)
    torch.testing.assert_close(image_bd, theirs.encode_image(images, normalize=True))
    torch.testing.assert_close(text_bd.norm(dim=-1), torch.ones(len(text_bd)))

    picture = Image.linear_gradient("L").resize((70, 50)).convert("RGB")
    ours = torch.from_numpy(model.spec.preprocess(picture))
    torch.testing.assert_close(ours, transform(picture), atol=0, rtol=0)

    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    texts = ["A photo of a cat!", "", "x &amp; y 😀", "long " * 50]
    assert tiny.tokens(model, texts).tolist() == tokenizer(texts).tolist()


@torch.no_grad()
def test_ptft_loads_an_open_clip_folder(model: DualEncoder, tmp_path: Path) -> None:
    folder = exported(model, tmp_path)
    if "hf_model_name" in model.spec.config["text_cfg"]:
        with pytest.raises(ModelError, match=r"hf_model_name: .*another repository.*hf_text"):
            load_model(folder)  # what an artefact names is not fetched
        model.text.config.save_pretrained(folder / "hf_text")
    again = load_model(folder)
    images, tokens = tiny.pictures(model), tiny.tokens(model)
    for ours, theirs in zip(again(images, tokens), model(images, tokens), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
    assert again.spec.text_trimmable == model.spec.text_trimmable
    texts = ["A photo of a cat!", "", "x &amp; y 😀"]
    assert tiny.tokens(again, texts).tolist() == tiny.tokens(model, texts).tolist()
    assert again.spec.preprocess == model.spec.preprocess
    state = open_clip_state_dict(again)
    assert state.keys() == open_clip_state_dict(model).keys()


@torch.no_grad()
def test_short_texts(model: DualEncoder) -> None:
    """Trimmed where padding does not matter, refused where it does."""
    tokens = tiny.tokens(model, ["a cat", "a red circle"])
    short = torch.from_numpy(model.spec.tokenizer.trim(tokens.numpy()))
    if model.spec.text_trimmable:
        assert short.shape[1] < tokens.shape[1]
        torch.testing.assert_close(
            model.encode_text(short), model.encode_text(tokens), atol=5e-6, rtol=0
        )
    else:
        assert short.shape == tokens.shape
        with pytest.raises(ModelError, match=r"attends to padding.*allowed: exactly 16"):
            model.encode_text(tokens[:, :7])


def test_which_towers_can_be_trimmed(model: DualEncoder) -> None:
    assert model.spec.text_trimmable == (model.spec.name != "tiny-siglip")


def test_flattened_names_of_a_plain_clip() -> None:
    state = open_clip_state_dict(tiny.build(tiny.arch_section()))
    assert state["logit_scale"].shape == ()
    assert "positional_embedding" in state
    assert not any(name.startswith("text.") for name in state)


@pytest.mark.parametrize("bias", [False, True])
def test_every_kind_of_pooling_equals_open_clip(bias: bool) -> None:
    from open_clip.transformer import TextTransformer

    from ptft.model.trunk import project, text_trunk

    tokens = torch.randint(3, 90, (4, 12))
    tokens[:, 5] = 2
    for pool in ("first", "last", "argmax", "eos"):
        for projection in ("linear", "none"):
            tower = TextTransformer(
                context_length=12, vocab_size=99, width=16, heads=2, layers=1, output_dim=8,
                pool_type=pool, proj_type=projection, proj_bias=bias, eos_id=2,
            ).eval()  # fmt: skip
            torch.testing.assert_close(project(tower, text_trunk(tower, tokens)), tower(tokens))


@torch.no_grad()
def test_text_exports_with_any_length(tmp_path: Path) -> None:
    """What ONNX export starts from: neither the batch nor the length may be baked in."""
    native = tiny.build(tiny.arch_section())
    masked = tiny.build(tiny.hf_section(tiny.hf_text_folder(tmp_path, "roberta")))
    for model in (native, masked):

        class Text(torch.nn.Module):
            def __init__(self, model: DualEncoder) -> None:
                super().__init__()
                self.model = model

            def forward(self, tokens: torch.Tensor) -> torch.Tensor:
                return self.model.encode_text(tokens)

        axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=16)}
        tokens = tiny.tokens(model)
        example = tokens[:, :7].contiguous()  # at full length the length would count as constant
        program = torch.export.export(Text(model), (example,), dynamic_shapes=(axes,)).module()
        for short in (tokens, tokens[:2, :7], tokens[:1, :9]):
            torch.testing.assert_close(program(short), model.encode_text(short))
