"""Tip-Adapter: its logits against a loop, what is chosen, and runs that only remember."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ptft.artifact import FolderFiles, RunFiles, read_json, read_model_info
from ptft.data import open_split
from ptft.errors import ModelError, RecipeError
from ptft.evaluate import embed_split, evaluate
from ptft.evaluate.tip_adapter import choose_strength
from ptft.export.model_files import write_head
from ptft.model import DualEncoder, load_model
from ptft.model.average import interpolate, soup
from ptft.model.classifier import Classifier
from ptft.onnx.model import OnnxModel
from ptft.recipe import ClassifyEvaluation, FolderData
from ptft.runs.folder import RunStatus, read_run, write_run
from tests.support import tiny
from tests.support.runs import recipe, run

COLOURS = {"red": (200, 90, 90), "green": (90, 190, 95), "blue": (90, 95, 200)}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> FolderData:
    """Noisy squares of three colours."""
    top = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 8)):
        for name, colour in COLOURS.items():
            (top / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.normal(rng.normal(colour, 40), 50, (32, 32, 3))
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(top / split / name / f"{index}.png")
    return FolderData(train=str(top / "train"), val=str(top / "val"))


def changes(colours: FolderData, **adapt: Any) -> dict[str, Any]:
    return {
        "data": {"kind": "folder", "train": colours.train, "val": colours.val},
        "objective": {"kind": "classify"},
        "adapt": {"kind": "tip_adapter", **adapt},
    }


def made(seed: int = 0) -> tuple[Classifier, torch.Tensor]:
    """A head of 3 classes with a cache of 5 pictures, and 4 pictures to classify."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> torch.Tensor:
        return F.normalize(torch.randn(count, 6, generator=generator), dim=-1)

    head = Classifier(6, 3)
    with torch.no_grad():
        head.weight.copy_(drawn(3))
        head.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    head.remember(drawn(5), torch.tensor([2, 0, 1, 1, 2]), alpha=1.7, beta=5.5)
    return head, drawn(4)


def looped(head: Classifier, images: torch.Tensor, scale: float, alpha: float, beta: float) -> Any:
    """The logits written out, one number at a time, in float64."""
    assert head.keys is not None and head.labels is not None
    rows, keys = head.weight.tolist(), head.keys.tolist()
    logits = []
    for image in images.tolist():
        row = []
        for number, weight in enumerate(rows):
            total = scale * sum(a * b for a, b in zip(image, weight, strict=True))
            total += head.bias[number].item()
            for key, label in zip(keys, head.labels.tolist(), strict=True):
                if label == number:
                    cosine = sum(a * b for a, b in zip(image, key, strict=True))
                    total += alpha * math.exp(-beta * (1.0 - cosine))
            row.append(total)
        logits.append(row)
    return torch.tensor(logits, dtype=torch.float64)


def test_logits_against_a_loop() -> None:
    head, images = made()
    found = head.logits(images, torch.tensor([14.0])).double()
    torch.testing.assert_close(found, looped(head, images, 14.0, 1.7, 5.5), rtol=0, atol=2e-5)
    head.divide(2.5)
    halved = head.logits(images, torch.tensor([14.0])).double()
    torch.testing.assert_close(halved, found / 2.5, rtol=0, atol=2e-5)


def test_the_strength_is_the_best_of_the_grid() -> None:
    alphas, betas = (0.1, 1.0, 10.0), (1.0, 4.0)
    for seed in range(4):
        head, images = made(seed)
        labels = torch.randint(0, 3, (4,), generator=torch.Generator().manual_seed(seed))
        ranks = {}
        for alpha in alphas:
            for beta in betas:
                logits = looped(head, images, 3.0, alpha, beta)
                right = (logits.argmax(1) == labels).double().mean().item()
                ranks[alpha, beta] = (right, -F.cross_entropy(logits, labels).item())
        with torch.no_grad():
            found = choose_strength(
                head, torch.tensor([3.0]), images, labels, alphas=alphas, betas=betas
            )
        assert (found.alpha, found.beta) == max(ranks, key=lambda pair: ranks[pair])
        assert found.top1 == pytest.approx(max(ranks.values())[0])


def test_a_run_remembers_its_training_set_and_takes_no_step(
    colours: FolderData, tmp_path: Path
) -> None:
    section = {**changes(colours), "evaluate": [{"kind": "classify"}]}
    result = run(tmp_path / "run", **section)
    assert result.finished
    record = read_run(tmp_path / "run")
    assert (record.step, record.total) == (0, 0)
    assert any("a cache of 12 pictures" in note for note in record.notes)
    model = load_model(tmp_path / "run")
    assert model.head is not None and model.head.keys is not None
    train = embed_split(model, open_split(colours, "train"), batch=64, workers=0)
    assert train.labels is not None and model.head.labels is not None
    torch.testing.assert_close(model.head.keys.detach(), train.inputs_nw, rtol=0, atol=1e-6)
    assert torch.equal(model.head.labels, train.labels)
    measured = evaluate(model, [ClassifyEvaluation()], colours, seed=0, workers=0)["classify"]
    assert result.metrics["classify"]["top1"] == measured["top1"]
    model.head.keys = None
    without = evaluate(model, [ClassifyEvaluation()], colours, seed=0, workers=0)["classify"]
    assert measured["top1"] > without["top1"], "the start knows nothing of colours"

    # a run that was killed after its start goes on
    (tmp_path / "run" / RunFiles.METRICS).unlink()
    record.status = RunStatus.STOPPED
    write_run(tmp_path / "run", record)
    assert run(tmp_path / "run", resume=True, **section).metrics == result.metrics
    assert read_json(tmp_path / "run" / RunFiles.METRICS) == result.metrics


def test_keys_learn_where_they_are_to(colours: FolderData, tmp_path: Path) -> None:
    given = changes(colours, learn=True, alpha=3.0, beta=2.0)
    run(tmp_path / "fixed", **changes(colours, alpha=3.0, beta=2.0))
    run(tmp_path / "learned", **given, optim__weight_decay=0.0)
    fixed, learned = (load_model(tmp_path / name).state_dict() for name in ("fixed", "learned"))
    assert fixed.keys() == learned.keys()
    moved = {name for name in fixed if not torch.equal(fixed[name], learned[name])}
    assert moved == {"head.keys"}


def test_caches_of_other_pictures_are_not_averaged() -> None:
    models: list[DualEncoder] = []
    for labels in ([0, 1], [1, 0]):
        model = tiny.build(tiny.towers_section())
        model.set_head(torch.zeros(2, 24), ["cat", "dog"], ())
        assert model.head is not None
        model.head.remember(torch.eye(2, 24), torch.tensor(labels), alpha=1.0, beta=1.0)
        models.append(model)
    for average in (lambda: soup(models), lambda: interpolate(*models, 0.5)):
        with pytest.raises(ModelError, match=r"head\.labels: caches of other pictures"):
            average()


def test_auto_needs_validation(colours: FolderData, tmp_path: Path) -> None:
    given = changes(colours)
    del given["data"]["val"]
    with pytest.raises(RecipeError, match=r"data\.val: missing"):
        run(tmp_path / "run", **given)
    run(tmp_path / "fixed", **{**given, "adapt": {"kind": "tip_adapter", "alpha": 1, "beta": 2}})


def test_it_is_for_classes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'tip_adapter' with objective\.kind 'clip'.*classify"):
        recipe(tmp_path, adapt={"kind": "tip_adapter"})


def test_the_service_gives_the_same_probabilities(classifier_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(classifier_folder, tmp_path / "model"))
    model = load_model(copy)
    assert model.head is not None
    rows = F.normalize(torch.randn(9, model.spec.embed_dim), dim=-1)
    model.head.remember(rows[:5], torch.tensor([0, 2, 2, 1, 0]), alpha=4.0, beta=3.0)
    write_head(model, copy / FolderFiles.HEAD)
    served = OnnxModel(copy, read_model_info(copy), "fp32", 1).head_probabilities(rows.numpy())
    with torch.no_grad():
        wanted = model.class_logits(rows).softmax(1).numpy()
        linear = model.head.linear(rows, model.logit_scale.exp()).softmax(1).numpy()
    assert np.abs(served - wanted).max() < 1e-5
    assert np.abs(served - linear).max() > 0.01, "the cache has a say"
