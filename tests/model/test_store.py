"""Models in folders: saved, found, read back without a network, refused with a reason."""

import json
from pathlib import Path

import pytest
import torch

from ptft.errors import ArtifactError, ModelError
from ptft.model import load_model, load_weights, save_model
from ptft.recipe import SiglipObjective
from tests.support import tiny


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("kind", ["tiny-vit", "tiny-siglip", "towers", "sized", "roberta"])
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    if kind == "towers":
        section = tiny.towers_section(image_args={"pad_type": "same"})
    elif kind == "sized":
        section = tiny.towers_section(image="test_vit", image_size=64)
    elif kind == "roberta":
        section = tiny.hf_section(tiny.hf_text_folder(source, kind))
    else:
        section = tiny.arch_section(kind)
    model = tiny.build(section, SiglipObjective())
    model.set_head(torch.randn(3, model.spec.embed_dim), ["a", "b", "é"], ["a {}."])
    with torch.no_grad():
        assert model.head is not None
        model.head.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    save_model(model, tmp_path / "out")
    if source.exists():
        source.rename(tmp_path / "elsewhere")  # what is saved stands alone
    again = load_model(tmp_path / "out")
    assert not again.training
    assert {k: v.tolist() for k, v in again.state_dict().items() if v.numel() < 50} == {
        k: v.tolist() for k, v in model.state_dict().items() if v.numel() < 50
    }
    images, tokens = tiny.pictures(model), tiny.tokens(model)
    with torch.no_grad():
        for ours, theirs in zip(again(images, tokens), model(images, tokens), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(again.classify(images), model.classify(images))
    ours, theirs = again.spec, model.spec
    assert tiny.tokens(again).tolist() == tiny.tokens(model).tolist()
    assert ours.tokenizer.kwargs() == theirs.tokenizer.kwargs()
    assert ours.with_(tokenizer=theirs.tokenizer) == theirs
    assert ours.classes == ("a", "b", "é")
    text = (tmp_path / "out" / "model.json").read_text(encoding="utf-8")
    assert kind == "roberta" or str(tmp_path) not in text
    save_model(again, tmp_path / "twice")
    for name in ("model.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_where_a_run_keeps_its_model(tmp_path: Path) -> None:
    first, second = tiny.build(tiny.arch_section(), seed=1), tiny.build(tiny.arch_section(), seed=2)
    with pytest.raises(ModelError, match="holds no model"):
        load_model(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ModelError, match="no checkpoint yet"):
        load_model(tmp_path)
    save_model(first, tmp_path / "checkpoints" / "step-00000090")
    save_model(second, tmp_path / "checkpoints" / "step-00000100")
    (tmp_path / "checkpoints" / ".step-00000110.partial").mkdir()
    assert torch.equal(load_model(tmp_path).image.proj, second.image.proj)
    one = tmp_path / "checkpoints" / "step-00000090"
    assert torch.equal(load_model(one).image.proj, first.image.proj)
    save_model(first, tmp_path / "final")
    assert torch.equal(load_model(str(tmp_path)).image.proj, first.image.proj)


def test_load_weights_in_place(tmp_path: Path) -> None:
    first, second = tiny.build(tiny.arch_section(), seed=1), tiny.build(tiny.arch_section(), seed=2)
    save_model(first, tmp_path)
    pointer = second.image.proj.data_ptr()
    load_weights(second, tmp_path)
    assert torch.equal(first.image.proj, second.image.proj)
    assert second.image.proj.data_ptr() == pointer  # an optimiser still holds it
    with pytest.raises(ModelError, match=r"missing image\.trunk.*left over image\.class_embedding"):
        load_weights(tiny.build(tiny.towers_section()), tmp_path)


def test_refusals(tmp_path: Path) -> None:
    model = tiny.build(tiny.arch_section())
    with pytest.raises(ModelError, match="no such folder; allowed: a run"):
        load_model(tmp_path / "absent")
    (tmp_path / "file.txt").write_bytes(b"x")
    with pytest.raises(ModelError, match="a file; allowed: a folder"):
        load_model(tmp_path / "file.txt")

    config = {"model_cfg": model.spec.open_clip_config}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ModelError, match=r"open_clip_pytorch_model\.bin, a pickle.*allowed: open"):
        load_model(tmp_path)
    config["model_cfg"] = {**config["model_cfg"], "multimodal_cfg": {}}  # type: ignore[dict-item]
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="generates captions"):
        load_model(tmp_path)
    config["model_cfg"] = {"embed_dim": 8, "vision_cfg": {"widht": 3}, "text_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="widht"):
        load_model(tmp_path)

    save_model(model, tmp_path / "m")
    values = json.loads((tmp_path / "m" / "model.json").read_text())
    (tmp_path / "m" / "model.json").write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(ModelError, match="format 2; this ptft reads 1"):
        load_model(tmp_path / "m")
    (tmp_path / "m" / "model.json").write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        load_model(tmp_path / "m")
