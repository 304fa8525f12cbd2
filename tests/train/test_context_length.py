"""Texts longer or shorter than the architecture's: what stays exact, and what is refused."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from ptft.artifact import FolderFiles, read_json, read_model_info
from ptft.compat import import_open_clip
from ptft.errors import ModelError
from ptft.export import export_model
from ptft.model import DualEncoder, load_model, save_model
from tests.support.tiny import arch_section, build

OWN = 16  # of the tiny architectures
TEXTS = ["a red circle", "", "a photo of a small green square above it"]
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[DualEncoder, Path]:
    """A model whose position embeddings are unlike those of a new one."""
    model = build(arch_section(), seed=7)
    with torch.no_grad():
        model.text.positional_embedding.mul_(50)
    folder = tmp_path_factory.mktemp("trained")
    save_model(model, folder)
    return model, folder


def embed(model: DualEncoder, texts: list[str]) -> torch.Tensor:
    return model.encode_text(torch.from_numpy(model.spec.tokenizer(texts)))


@pytest.mark.parametrize("length", [12, 24])
def test_texts_that_fit_both_lengths_keep_their_embeddings(
    trained: tuple[DualEncoder, Path], length: int
) -> None:
    source, folder = trained
    model = build(arch_section(pretrained=str(folder), context_length=length))
    assert model.context_length == length
    assert model.text.positional_embedding.shape[0] == length
    difference = (embed(model, TEXTS) - embed(source, TEXTS)).abs().max().item()
    assert difference <= 1e-6
    both = min(length, OWN)
    positions = model.text.positional_embedding
    assert torch.equal(positions[:both], source.text.positional_embedding[:both])


def test_what_did_not_fit_before_is_read_now(trained: tuple[DualEncoder, Path]) -> None:
    source, folder = trained
    model = build(arch_section(pretrained=str(folder), context_length=24))
    other = LONG.replace("fifteen", "fish")
    assert torch.equal(*embed(source, [LONG, other]))
    assert not torch.equal(*embed(model, [LONG, other]))
    again = build(arch_section(pretrained=str(folder), context_length=24))
    assert torch.equal(embed(model, [LONG]), embed(again, [LONG])), "new rows come from the seed"


def test_open_clip_onnx_and_a_later_run_take_that_length(
    trained: tuple[DualEncoder, Path], tmp_path: Path
) -> None:
    length = 24
    model = build(arch_section(pretrained=str(trained[1]), context_length=length))
    save_model(model, tmp_path / "checkpoint")
    export_model(tmp_path / "checkpoint", tmp_path / "model", name="tiny", precisions=())
    texts = [*TEXTS, LONG]
    tokens = model.spec.tokenizer(texts)
    assert tokens.shape == (4, length)
    wanted = embed(model, texts).detach()
    info = read_model_info(tmp_path / "model")
    assert info.context_length == length
    config = read_json(tmp_path / "model" / FolderFiles.OPEN_CLIP_CONFIG)
    assert config["model_cfg"]["text_cfg"]["context_length"] == length
    assert torch.equal(embed(load_model(tmp_path / "model"), texts), wanted)
    session = onnxruntime.InferenceSession(tmp_path / "model" / "onnx" / "text_model.onnx")
    [given] = session.get_inputs()
    rows = session.run(None, {given.name: tokens})[0]
    cosine = torch.cosine_similarity(torch.from_numpy(np.asarray(rows)), wanted).min().item()
    assert cosine > 1 - 1e-5

    open_clip = import_open_clip()
    theirs, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'model'}")
    read = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'model'}")(texts)
    assert read.tolist() == tokens.tolist()
    difference = (theirs.eval().encode_text(read) - wanted).abs().max().item()
    assert difference <= 1e-5


def test_a_tower_whose_padding_counts_keeps_its_length(tmp_path: Path) -> None:
    section = arch_section("tiny-siglip", context_length=12)
    model = build(section)
    assert embed(model, TEXTS).shape == (3, 32), "new weights know no other length"
    save_model(model, tmp_path)
    with pytest.raises(ModelError, match=r"model\.context_length: 24: the text tower of tiny-sig"):
        build(arch_section("tiny-siglip", pretrained=str(tmp_path), context_length=24))
