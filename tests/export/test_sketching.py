"""The sketch that an export writes: of which samples, and when there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ptft.data import open_split
from ptft.export.samples import write_sketch
from ptft.model import DualEncoder
from ptft.recipe import Recipe
from ptft.recipe.load import parse_recipe
from ptft.sketch import Sketches
from tests.serving.checkpoint import make_model


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return make_model()


ABSENT = {
    "name": "absent",
    "model": {"name": "ViT-B-32"},
    "data": {"kind": "shards", "train": "/nowhere/a.tar", "val": "/nowhere/b.tar"},
    "optim": {"samples_seen": 64, "global_batch": 8},
}


def recipe(**data: object) -> Recipe:
    values = {
        "name": "sketched",
        "model": {"name": "ViT-B-32"},
        "data": {"kind": "scenes", "size": 32, "train": 100, "val": 70, **data},
        "optim": {"samples_seen": 64, "global_batch": 8},
    }
    return parse_recipe(values, where="test")


def test_it_is_of_samples_spread_over_training(
    model: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptft.export.samples.SAMPLES", 64)
    counted: list[tuple[str, int, int]] = []
    for name in ("one", "two"):
        reason = write_sketch(
            model, recipe(), tmp_path / name, count=lambda *done: counted.append(done)
        )
        assert reason is None
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert ("sketch of train", 64, 64) in counted and ("sketch of val", 64, 64) in counted

    found = Sketches.read(tmp_path / "one", model.spec.embed_dim, 3)
    assert found.image is not None and found.text is not None and found.confidence is not None
    assert found.image.counts.tolist() == [64, 64]
    samples = open_split(recipe().data, "train")
    places = np.linspace(0, 99, 64).astype(int)
    pixels = np.stack([model.spec.preprocess(samples[int(i)].image) for i in places])
    with torch.no_grad():
        rows = F.normalize(model.encode_image(torch.from_numpy(pixels)), dim=-1)
        probabilities = model.class_logits(rows).softmax(dim=1)
    assert np.allclose(found.image.mean, rows.mean(dim=0), atol=1e-6)
    share = torch.bincount(probabilities.argmax(dim=1), minlength=3) / 64
    assert np.allclose(found.confidence.share, share)


def test_why_there_is_none(model: DualEncoder, tmp_path: Path) -> None:
    path = tmp_path / "sketch"
    for given, said in (
        (None, "no recipe is recorded"),
        (recipe(val=59), "fewer than 60 samples"),
        (parse_recipe(ABSENT, where="test"), "its data is not here"),
    ):
        reason = write_sketch(model, given, path)
        assert reason is not None and said in reason and "/nowhere" not in reason
        assert not path.exists()
