"""Contrastive learning of a labelled set: its captions, its positives, and runs on it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ptft.data import Batch, open_split
from ptft.data.hashing import hash_integers
from ptft.data.sources.class_captions import ClassCaptions
from ptft.errors import DataError, SampleError
from ptft.model import build_model, load_model
from ptft.objective import clip_loss
from ptft.recipe import ClipObjective, FolderData, InitSection, Recipe
from ptft.tiled import tiled_clip_loss
from ptft.train.batches import batches
from ptft.train.setup import set_up
from tests.support.runs import interrupt, largest_difference, recipe, run

CLASSES = ["cat", "dog", "sea"]
TEMPLATES = ["a photo of a {}.", "a drawing of a {}.", "the {}"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Plain pictures of three classes, in ImageFolder layout."""
    top = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(CLASSES):
        folder = top / name
        folder.mkdir()
        for index in range(10):
            colour = tuple(hash_integers(number, index, part) % 256 for part in range(3))
            Image.new("RGB", (32, 32), colour).save(folder / f"{index}.png")
    return {"kind": "folder", "train": str(top)}


def flyp(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"data": data, "objective": {"kind": "clip", "templates": TEMPLATES}, **more}


def read(section: Recipe, *, start: int, end: int) -> tuple[list[str], list[Batch]]:
    """Captions that training sees, and its batches."""
    setup = set_up(section, torch.device("cpu"))
    found = list(
        batches(section, setup, start=start, end=end, size=16, workers=section.run.workers)
    )
    decode = setup.model.spec.tokenizer.decode
    texts = [text for batch in found for text in decode(_numbers(batch))]
    assert setup.model.spec.classes == tuple(CLASSES)
    assert setup.model.spec.templates == tuple(TEMPLATES)
    return texts, found


def _numbers(batch: Batch) -> Any:
    assert batch.tokens is not None
    return batch.tokens.numpy()


def test_captions_are_the_class_names_in_the_templates(
    data: dict[str, Any], tmp_path: Path
) -> None:
    plain = open_split(FolderData(**data), "train")
    samples = ClassCaptions(plain, TEMPLATES)
    assert len(samples) == len(plain) == 30
    for index in range(30):
        name = CLASSES[index // 10]
        wanted = tuple(template.replace("{}", name) for template in TEMPLATES)
        assert samples[index].captions == samples.captions(index) == wanted
        assert samples.describe(index) == (wanted, index // 10)
        assert samples[index].label == plain[index].label

    section = recipe(tmp_path, **flyp(data))
    texts, found = read(section, start=0, end=160)
    labels = torch.cat([batch.labels for batch in found if batch.labels is not None]).tolist()
    setup = set_up(section, torch.device("cpu"))
    tokenizer = setup.model.spec.tokenizer
    for text, label in zip(texts, labels, strict=True):
        mine = [template.replace("{}", CLASSES[label]) for template in TEMPLATES]
        assert text in tokenizer.decode(tokenizer(mine))
    assert len(set(texts)) == 9, "every template of every class is drawn"


def test_what_is_drawn_depends_on_seed_and_position_alone(
    data: dict[str, Any], tmp_path: Path
) -> None:
    texts, _ = read(recipe(tmp_path, **flyp(data)), start=0, end=96)
    again, _ = read(recipe(tmp_path, **flyp(data, run__workers=2)), start=48, end=96)
    assert again == texts[48:]
    other, _ = read(recipe(tmp_path, **flyp(data, seed=1)), start=0, end=96)
    assert other != texts


def test_pairs_of_one_class_are_positives_whatever_their_templates(
    data: dict[str, Any], tmp_path: Path
) -> None:
    _, found = read(recipe(tmp_path, **flyp(data)), start=0, end=16)
    assert found[0].caption_ids is not None
    assert found[0].labels is not None
    assert torch.equal(found[0].caption_ids, found[0].labels)

    generator = torch.Generator().manual_seed(0)
    image, text = (
        F.normalize(torch.randn(7, 5, generator=generator, dtype=torch.float64), dim=-1)
        for _ in range(2)
    )
    ids = torch.tensor([0, 1, 0, 2, 2, 0, 3])  # texts of one class differ here
    scale = torch.tensor([4.0], dtype=torch.float64)
    total = 0.0
    for logits in (4.0 * image @ text.T, 4.0 * text @ image.T):
        for i in range(7):
            positives = [j for j in range(7) if ids[j] == ids[i]]
            others = sum(logits[i, k].exp() for k in range(7) if ids[k] != ids[i])
            terms = [-(logits[i, j].exp() / (logits[i, j].exp() + others)).log() for j in positives]
            total += float(sum(terms)) / len(positives) / 14
    assert clip_loss(image, text, scale, caption_ids=ids).item() == pytest.approx(total, abs=1e-12)
    leaves = [one.clone().requires_grad_() for one in (image, text, scale)]
    whole = torch.autograd.grad(clip_loss(*leaves, caption_ids=ids), leaves)
    tiled = torch.autograd.grad(tiled_clip_loss(*leaves, ids), leaves)
    for a, b in zip(whole, tiled, strict=True):
        assert (a - b).abs().max().item() <= 1e-12


def test_a_set_without_classes_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a black square\n")
    section = recipe(tmp_path, **flyp({"kind": "folder", "train": str(tmp_path)}))
    with pytest.raises(DataError, match=r"objective\.templates: .* need data with classes"):
        set_up(section, torch.device("cpu"))


def test_a_sample_without_a_label_cannot_be_read(data: dict[str, Any]) -> None:
    samples = ClassCaptions(open_split(FolderData(**data), "train"), ["a {}"])
    with pytest.raises(SampleError, match="x: it has no label"):
        samples._of(None, "x")


def test_a_resumed_run_equals_the_uninterrupted_one(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = flyp(data, adapt={"kind": "full", "lock": ["text"]})  # whose features are kept
    given["run__cache"] = str(tmp_path / "cache")
    run(tmp_path / "whole", **given)
    interrupt(monkeypatch, tmp_path / "cut", 3, **given)
    assert run(tmp_path / "cut", resume=True, **given).finished
    assert largest_difference(tmp_path / "whole", tmp_path / "cut") == 0.0


def test_the_model_knows_its_classes_until_it_learns_others(
    data: dict[str, Any], tmp_path: Path
) -> None:
    run(tmp_path / "flyp", **flyp(data))
    spec = load_model(tmp_path / "flyp").spec
    assert (spec.classes, spec.templates) == (tuple(CLASSES), tuple(TEMPLATES))
    start = InitSection.model_validate({"from": str(tmp_path / "flyp")})
    plain = build_model(None, start, ClipObjective(), seed=0)
    assert (plain.spec.classes, plain.spec.templates) == ((), ())
