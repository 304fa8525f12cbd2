"""Models from recipes: seeds, weights to start from, what does not fit together."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ptft.compat import import_open_clip, import_timm
from ptft.errors import ModelError, RecipeError
from ptft.model import build_model, load_model, open_clip_state_dict, save_model
from ptft.recipe import (
    ClassifyObjective,
    ClipObjective,
    InitSection,
    SiglipObjective,
    TextTower,
)
from tests.support import tiny

CLIP = ClipObjective()


def states_equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_same_seed_same_weights() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = tiny.build(tiny.towers_section(), seed=3)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's numbers are used up
    torch.manual_seed(2)
    assert states_equal(first, tiny.build(tiny.towers_section(), seed=3))
    assert not states_equal(first, tiny.build(tiny.towers_section(), seed=4))


def test_logit_scale_and_bias_of_a_new_model() -> None:
    model = tiny.build(tiny.towers_section(), ClipObjective(init_temperature=0.05))
    assert model.logit_scale.shape == (1,)
    assert model.logit_scale.item() == pytest.approx(math.log(20))
    assert model.logit_bias is None
    assert "init_logit_bias" not in model.spec.config
    model = tiny.build(tiny.arch_section(), SiglipObjective(init_temperature=0.1, init_bias=-7))
    assert model.logit_scale.item() == pytest.approx(math.log(10))
    assert model.logit_bias is not None
    assert model.logit_bias.item() == -7
    assert model.spec.config["init_logit_bias"] == -7
    model = tiny.build(tiny.arch_section("tiny-siglip"), CLIP)
    assert model.logit_bias is None


def test_init_from_keeps_what_was_learned(tmp_path: Path) -> None:
    model = tiny.build(tiny.arch_section(), SiglipObjective())
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
        assert model.logit_bias is not None
        model.logit_bias.fill_(-4.0)
    model.set_head(torch.ones(2, 24), ["a", "b"], ["{}"])
    save_model(model, tmp_path / "final")
    init = InitSection.model_validate({"from": str(tmp_path)})
    again = build_model(None, init, SiglipObjective(init_bias=-10), seed=0)
    assert again.logit_scale.item() == 3.0
    assert again.logit_bias is not None
    assert again.logit_bias.item() == -4.0
    assert again.head is None  # a contrastive objective would leave it stale
    assert again.spec.classes == ()
    assert again.training
    classifier = build_model(None, init, ClassifyObjective(), seed=0)
    assert classifier.head is not None
    assert classifier.spec.base == tmp_path.name
    plain = tiny.build(tiny.arch_section(), CLIP)
    save_model(plain, tmp_path / "plain")
    init = InitSection.model_validate({"from": str(tmp_path / "plain")})
    biased = build_model(None, init, SiglipObjective(init_bias=-10), seed=0)
    assert biased.logit_bias is not None
    assert biased.logit_bias.item() == -10


def test_wrong_names_are_told_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    import ptft.model.build

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a tower was built")

    monkeypatch.setattr(ptft.model.build, "build_towers", never)
    with pytest.raises(RecipeError, match=r"'laion2b_s34b_b79'.*did you mean 'laion2b_s34b_b79k'"):
        build_model(
            tiny.arch_section("ViT-B-32", pretrained="laion2b_s34b_b79"), None, CLIP, seed=0
        )
    with pytest.raises(RecipeError, match=r"'ViT-B32'.*did you mean 'ViT-B-32'"):
        build_model(tiny.arch_section("ViT-B32"), None, CLIP, seed=0)
    with pytest.raises(RecipeError, match=r"'ra_in1'.*did you mean 'ra_in1k'"):
        section = tiny.towers_section(image="mobilenetv2_100", image_weights="ra_in1")
        build_model(section, None, CLIP, seed=0)
    with pytest.raises(ModelError, match=r"tiny-coca: not supported: it generates captions"):
        build_model(tiny.arch_section("tiny-coca"), None, CLIP, seed=0)
    with pytest.raises(ModelError, match=r"coca_ViT-B-32: not supported"):
        build_model(tiny.arch_section("coca_ViT-B-32"), None, CLIP, seed=0)


def test_parts_that_do_not_fit_together(tmp_path: Path) -> None:
    for values, message in [
        ({"text_projection": "mlp"}, "'mlp'.*allowed: linear, none"),
        ({"text_projection": "none"}, "embed_dim: 24;.*allowed: 32"),
        ({"image_projection": "none"}, "embed_dim: 24;.*allowed: 256"),
        ({"image_args": {"pad_typ": "same"}}, "image_args.*pad_typ"),
        ({"image_args": {"feature_size": 64}}, "image_args"),
    ]:
        with pytest.raises(ModelError, match=message):
            tiny.build(tiny.towers_section(**values))
    folder = tiny.hf_text_folder(tmp_path, "roberta")
    with pytest.raises(ModelError, match=r"context_length: 39; allowed for .*: at most 38"):
        tiny.build(tiny.hf_section(folder, context_length=39))
    with pytest.raises(ModelError, match="max_pooler masks the words"):
        tiny.build(tiny.hf_section(folder, text_pool="max_pooler"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "robert"}))
    with pytest.raises(ModelError, match="a robert model; did you mean 'roberta'"):
        tiny.build(tiny.hf_section(folder))


def test_transformers_weights(tmp_path: Path) -> None:
    folder = tiny.hf_text_folder(tmp_path / "a", "bert")
    model = tiny.build(tiny.hf_section(folder))
    published = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(model.text.transformer.state_dict()[name], published[name])
    assert model.spec.base == "a without pooler.dense"
    random = tiny.build(tiny.hf_section(folder, text_weights=False))
    assert not torch.equal(random.text.transformer.state_dict()[name], published[name])
    del published[name]
    save_file(published, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"no weights for {name}"):
        tiny.build(tiny.hf_section(folder))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ModelError, match="has no safetensors; pickles are not read"):
        tiny.build(tiny.hf_section(folder))


def test_pretrained_from_a_file_and_a_folder(tmp_path: Path) -> None:
    source = tiny.build(tiny.arch_section(), seed=5)
    state = {key: value.contiguous() for key, value in open_clip_state_dict(source).items()}
    file = tmp_path / "weights.safetensors"
    save_file({key: value.half() for key, value in state.items()}, file)
    model = tiny.build(tiny.arch_section(pretrained=str(file)), seed=0)
    assert model.spec.base == "weights.safetensors"
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, source.state_dict()[name], atol=1e-3, rtol=1e-3)

    # the temperature of pretrained weights stays, and the folder's GELU counts
    with torch.no_grad():
        source.logit_scale.fill_(4.0)
    source.spec = source.spec.with_(config={**source.spec.config, "quick_gelu": False})
    save_model(source, tmp_path / "folder")
    model = tiny.build(tiny.arch_section(pretrained=str(tmp_path / "folder")))
    assert model.logit_scale.item() == 4.0
    assert model.spec.config["quick_gelu"] is False
    assert type(model.image.transformer.resblocks[0].mlp.gelu).__name__ == "GELU"

    with pytest.raises(ModelError, match=r"missing image\.bn1.*left over image\.class_emb"):
        tiny.build(tiny.arch_section("tiny-resnet", pretrained=str(file)))
    del state["visual.proj"], state["ln_final.bias"]
    save_file({**state, "visual.extra": torch.zeros(2)}, file)
    with pytest.raises(
        ModelError, match=r"missing image\.proj, text\.ln_final\.bias; left over image\.extra"
    ):
        tiny.build(tiny.arch_section(pretrained=str(file)))
    file.write_bytes(b"junk")
    with pytest.raises(ModelError, match="not a safetensors file"):
        tiny.build(tiny.arch_section(pretrained=str(file)))


def test_tags_bring_quick_gelu_and_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ViT-B-32 with the tag openai, whose weights were trained with QuickGELU."""
    import ptft.model.pretrained as pretrained

    open_clip = import_open_clip()
    tag = open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    source = tiny.build(tiny.arch_section("tiny-resnet"))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {**tag, "mean": (0.5,) * 3})
    monkeypatch.setattr(pretrained, "read_tag", lambda *_: open_clip_state_dict(source))
    model = tiny.build(tiny.arch_section("tiny-resnet", pretrained="openai"))
    assert model.spec.config["quick_gelu"] is True
    assert model.spec.preprocess.mean == (0.5, 0.5, 0.5)
    assert model.spec.base == "tiny-resnet/openai"
    assert torch.equal(model.logit_scale, source.logit_scale)


def test_another_image_size(tmp_path: Path) -> None:
    source = tiny.build(tiny.arch_section())
    save_model(source, tmp_path)
    model = tiny.build(tiny.arch_section(pretrained=str(tmp_path), image_size=64))
    assert model.spec.preprocess.size == (64, 64)
    assert model.spec.open_clip_config is not None
    assert model.image.positional_embedding.shape[0] == 17
    assert model.encode_image(tiny.pictures(model)).shape == (3, 24)
    assert torch.equal(model.image.positional_embedding[0], source.image.positional_embedding[0])

    timm = tiny.build(tiny.towers_section(image="test_vit", image_size=64))
    assert timm.encode_image(tiny.pictures(timm)).shape == (3, 24)
    assert timm.spec.open_clip_config is None
    assert "64x64" in str(timm.spec.open_clip_reason)
    assert tiny.build(tiny.towers_section(image="test_vit", image_size=160)).spec.open_clip_config


def test_image_weights(tmp_path: Path) -> None:
    timm = import_timm()
    network = timm.create_model("test_efficientnet", num_classes=11)
    file = tmp_path / "net.safetensors"
    save_file(dict(network.state_dict()), file)
    model = tiny.build(tiny.towers_section(image_weights=str(file)))
    assert model.spec.base == (
        "net.safetensors without its classifier (classifier.bias, classifier.weight)"
    )
    images = tiny.pictures(model)
    network.eval()
    network.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(model.image.trunk(images), network(images), atol=0, rtol=0)
    state = load_file(file)
    del state["conv_head.weight"]
    save_file({**state, "aux.weight": torch.zeros(1)}, file)
    with pytest.raises(ModelError, match=r"missing conv_head\.weight; left over aux\.weight"):
        tiny.build(tiny.towers_section(image_weights=str(file)))
    with pytest.raises(ModelError, match=r"a \.pth file may run code"):
        (tmp_path / "net.pth").write_bytes(b"")
        tiny.build(tiny.towers_section(image_weights=str(tmp_path / "net.pth")))


def test_real_mobilenet(shared_data: Path, tmp_path: Path) -> None:
    timm = import_timm()
    file = shared_data / "mobilenetv2" / "mobilenetv2_100.safetensors"
    section = tiny.towers_section(
        image="mobilenetv2_100",
        image_weights=str(file),
        image_args={"pad_type": "same"},
        image_size=224,
        image_projection="none",
        embed_dim=1280,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        text=TextTower(width=32, layers=1, heads=2, context_length=16),
    )
    model = tiny.build(section)
    network = timm.create_model("mobilenetv2_100", num_classes=1001, pad_type="same").eval()
    weights = {name: tensor.float() for name, tensor in load_file(file).items()}
    network.load_state_dict(weights, strict=True)
    images = tiny.pictures(model, 2)
    with torch.no_grad():
        features = network.forward_head(network.forward_features(images), pre_logits=True)
        torch.testing.assert_close(model.encode_image(images), features, atol=0, rtol=0)
    assert "without its classifier" in str(model.spec.base)
    assert model.spec.open_clip_config is None
    assert "pad_type: same" in str(model.spec.open_clip_reason)
    save_model(model, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path).encode_image(images), features)


def test_a_trunk_that_widens_after_pooling_is_refused_before_it_fails_in_a_step() -> None:
    with pytest.raises(ModelError, match=r"'mobilenetv3_small_050': 288 features .* 1024 after"):
        build_model(
            tiny.towers_section(image="mobilenetv3_small_050"), None, ClipObjective(), seed=0
        )
