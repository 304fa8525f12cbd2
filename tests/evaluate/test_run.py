"""A recipe's evaluations on real sets, against open_clip's arithmetic and plain loops."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ptft.compat import import_open_clip
from ptft.data import open_split
from ptft.errors import DataError, ModelError
from ptft.evaluate import embed_split, embed_texts, evaluate
from ptft.evaluate import run as run_module
from ptft.model import DualEncoder
from ptft.recipe import (
    ClassifyEvaluation,
    FolderData,
    ProbeEvaluation,
    RetrievalEvaluation,
    ScenesData,
    ZeroShotEvaluation,
)
from tests.support import tiny

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}
SCENES = ScenesData(size=32, train=48, val=40, test=12)


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return tiny.build(tiny.arch_section())


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> FolderData:
    """Noisy squares of three colours in ImageFolder layout, and one file that is no picture."""
    top = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 6)):
        for name, colour in COLOURS.items():
            folder = top / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                noise = rng.normal(colour, 60, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(folder / f"{index}.png")
    (top / "val" / "red" / "broken.png").write_bytes(b"no picture")
    return FolderData(train=str(top / "train"), val=str(top / "val"))


def test_embeddings_are_the_models_own(model: DualEncoder) -> None:
    samples = open_split(SCENES, "val")
    found = embed_split(model, samples, batch=7, workers=0)
    preprocess = model.spec.preprocess
    with torch.no_grad():
        for index in (0, 6, 39):
            pixels = torch.from_numpy(preprocess(samples[index].image))[None]
            expected = F.normalize(model.encode_image(pixels), dim=-1)[0]
            assert (found.inputs_nw[index] - expected).abs().max() < 1e-6
        texts = [samples[index].captions[0] for index in range(5)] + [""]
        rows = embed_texts(model, [*texts, texts[0]], batch=4)
        expected = F.normalize(model.encode_text(tiny.tokens(model, texts)), dim=-1)
    assert (rows[:6] - expected).abs().max() < 1e-6
    assert torch.equal(rows[6], rows[0])
    assert found.captions[3] == samples.captions(3)


def test_zero_shot_is_open_clips_classifier(model: DualEncoder) -> None:
    open_clip = import_open_clip()
    templates = ["a drawing of a {}.", "the {}"]
    item = ZeroShotEvaluation(templates=templates)
    figures = evaluate(model, [item], SCENES, seed=0, device="cpu", workers=0)["zero_shot"]

    class AsOpenClip:
        def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
            assert normalize
            return F.normalize(model.encode_text(tokens), dim=-1)

    samples = open_split(SCENES, "val")
    weights_dc = open_clip.build_zero_shot_classifier(
        AsOpenClip(),
        lambda texts: torch.from_numpy(model.spec.tokenizer(texts)),
        samples.classes,
        templates,
    )
    images = embed_split(model, samples, batch=40, workers=0).inputs_nw
    predicted = (images @ weights_dc).argmax(1)
    right = (predicted == torch.from_numpy(samples.labels())).float().mean()
    assert figures["top1"] == pytest.approx(float(right), abs=1e-6)
    assert figures["classes"] == len(samples.classes)
    assert figures["images"] == 40


def test_a_split_is_embedded_once_and_the_mode_is_kept(
    model: DualEncoder, colours: FolderData, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = run_module.embed_split

    def counted(*args: object, what: str, **kwargs: object) -> object:
        asked.append(what)
        return original(*args, what=what, **kwargs)

    monkeypatch.setattr(run_module, "embed_split", counted)
    items = [
        RetrievalEvaluation(data=SCENES),
        ZeroShotEvaluation(),
        ProbeEvaluation(),
        ProbeEvaluation(name="weak", c=0.01),
        ZeroShotEvaluation(name="scenes", data=SCENES),
    ]
    model.train()
    before = torch.get_rng_state()
    told: list[tuple[str, int, int]] = []
    results = evaluate(
        model,
        items,
        colours,
        seed=0,
        device="cpu",
        workers=0,
        progress=lambda *what: told.append(what),
    )
    assert model.training, "left as it was found"
    model.eval()
    assert torch.equal(before, torch.get_rng_state())
    assert asked == ["val images", "val images", "train images"], "scenes, colours, colours"
    assert ("train images", 30, 30) in told
    assert list(results) == ["retrieval", "zero_shot", "probe", "weak", "scenes"]
    json.dumps(results)
    assert results["weak"]["c"] == 0.01
    assert results["probe"]["top1"] > 0.8, "even a random tower tells red from blue"
    assert results["probe"]["train_images"] == 30


def test_skipped_samples_are_counted_and_named(model: DualEncoder, colours: FolderData) -> None:
    figures = evaluate(model, [ZeroShotEvaluation()], colours, seed=0, device="cpu", workers=0)
    figures = figures["zero_shot"]
    assert figures["images"] == 18
    assert figures["skipped"] == 1
    assert len(figures["skipped_samples"]) == 1
    assert "broken" in figures["skipped_samples"][0]


def test_samples_without_a_class_are_left_out_of_what_asks_for_classes(
    model: DualEncoder, tmp_path: Path
) -> None:
    """By the same places in their set; what reads captions reads the others too."""
    rng = np.random.default_rng(0)
    kinds = ["red", "", "blue", "", "red", "blue"]
    sets = {}
    for name, kept in (("all", range(6)), ("told", (0, 2, 4, 5))):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "metadata.csv").open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["file_name", "kind", "text"])
            rows.writerows([f"{n}.png", kinds[n], f"caption {n}"] for n in kept)
        sets[name] = FolderData(test=str(tmp_path / name), label="kind")
    for number in range(6):
        pixels = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
        for name in sets:
            pixels.save(tmp_path / name / f"{number}.png")
    item = ZeroShotEvaluation(split="test", name="classes")
    both = [item, RetrievalEvaluation(split="test", name="pairs")]
    said: list[str] = []
    answers = {name: {} for name in sets}  # type: ignore[var-annotated]
    figures = {
        name: evaluate(model, both, data, seed=0, tell=said.append, classed=answers[name])
        for name, data in sets.items()
    }
    assert figures["all"]["classes"] == figures["told"]["classes"]
    assert figures["all"]["pairs"]["images"] == 6
    assert "data.test: left out: 2 of 6 samples have no class" in said
    assert answers["all"]["classes"].places_n.tolist() == [0, 2, 4, 5]


def test_retrieval_takes_all_captions_of_an_image(model: DualEncoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with (tmp_path / "metadata.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file_name", "one", "two"])
        for index in range(6):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(
                tmp_path / f"{index}.png"
            )
            rows.writerow([f"{index}.png", f"picture {index}", "noise"])
    data = FolderData(val=str(tmp_path), captions=["{one}", "{two}"])
    item = RetrievalEvaluation(ks=[1, 6])
    figures = evaluate(model, [item], data, seed=0, device="cpu", workers=0)["retrieval"]
    assert (figures["images"], figures["captions"]) == (6, 12)
    assert figures["duplicate_captions"] == 6
    assert figures["t2i_recall@6"] == 1.0
    assert figures["i2t_chance@1"] == pytest.approx(2 / 12)


def test_the_models_own_head(model: DualEncoder, colours: FolderData) -> None:
    samples = open_split(colours, "val")
    model = tiny.build(tiny.arch_section(), seed=3)
    with pytest.raises(ModelError, match="this model has none"):
        evaluate(model, [ClassifyEvaluation()], colours, seed=0, device="cpu", workers=0)
    names = ["red", "blue", "yellow", "green"]  # another order than the data's, and one more
    rows = torch.randn(4, model.spec.embed_dim, generator=torch.Generator().manual_seed(0))
    model.set_head(rows, names, ["{}"])
    assert model.head is not None
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.3, -0.2, 0.1, 0.0]))
    results = evaluate(model, [ClassifyEvaluation()], colours, seed=0, device="cpu", workers=0)
    right = []
    for index in range(len(samples)):
        if "broken" in samples.name(index):
            continue
        sample = samples[index]
        with torch.no_grad():
            pixels = torch.from_numpy(model.spec.preprocess(sample.image))[None]
            best = int(model.classify(pixels).argmax())
        assert sample.label is not None
        right.append(names[best] == samples.classes[sample.label])
    assert results["classify"]["top1"] == pytest.approx(np.mean(right))
    model.set_head(rows[:3], ["red", "blue", "grean"], ["{}"])
    with pytest.raises(DataError, match=r"'green': unknown to the model's head; did you mean"):
        evaluate(model, [ClassifyEvaluation()], colours, seed=0, device="cpu", workers=0)


def test_data_without_what_an_item_needs(model: DualEncoder, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a thing\n")
    data = FolderData(val=str(tmp_path))
    with pytest.raises(DataError, match="zero_shot needs labels"):
        evaluate(model, [ZeroShotEvaluation()], data, seed=0, device="cpu", workers=0)


def test_diverged_weights_are_named(model: DualEncoder) -> None:
    broken = tiny.build(tiny.arch_section())
    with torch.no_grad():
        next(broken.image.parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match=r"val/0+0'.*not finite"):
        evaluate(broken, [RetrievalEvaluation()], SCENES, seed=0, device="cpu", workers=0)
