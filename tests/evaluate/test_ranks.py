"""Ranks of every kind against float64 loops by hand, and that a comparison has evaluate's own."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ptft.compare.metric import measure_metric
from ptft.data import open_split
from ptft.errors import DataError, ModelError
from ptft.evaluate import embed_split, evaluate
from ptft.evaluate.class_ranks import rank_classes, rank_labels, rank_probe
from ptft.evaluate.ranks import rank_retrieval
from ptft.model import DualEncoder
from ptft.recipe import (
    ClassifyEvaluation,
    EvaluateItem,
    FolderData,
    ProbeEvaluation,
    RetrievalEvaluation,
    ZeroShotEvaluation,
)
from tests.support import tiny

COLOURS = {"blue": (40, 60, 220), "green": (30, 200, 40), "red": (220, 30, 30)}


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    """With a head whose rows stand in another order than the classes, and one class more."""
    made = tiny.build(tiny.arch_section(), seed=5)
    rows = torch.randn(4, made.spec.embed_dim, generator=torch.Generator().manual_seed(1))
    made.set_head(F.normalize(rows, dim=1), ["red", "grey", "green", "blue"], ["{}"])
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FolderData:
    """Pictures of three colours, one of which ``val`` lacks; some have no caption, some an equal
    one, and one file is no picture."""
    top = tmp_path_factory.mktemp("ranks")
    rng = np.random.default_rng(0)
    for split, names in (("val", ("blue", "red")), ("train", tuple(COLOURS))):
        (top / split).mkdir()
        rows: list[dict[str, Any]] = []
        for index in range(21):
            name = names[index % len(names)]
            noise = rng.normal(COLOURS[name], 400, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(top / split / f"{index}.png")
            texts = [f"{name} {index // 2}", f"thing {index}"][: index % 3]
            rows.append({"file_name": f"{index}.png", "text": texts, "label": name})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (top / split / "metadata.jsonl").write_text(lines)
        (top / split / "7.png").write_bytes(b"no picture")
    paths = {split: str(top / split) for split in ("train", "val")}
    return FolderData(**paths, label="label", max_skipped=1.0)


ITEMS: list[tuple[EvaluateItem, str]] = [
    (RetrievalEvaluation(ks=[1, 4]), "i2t_recall@1"),
    (RetrievalEvaluation(ks=[1, 4]), "i2t_recall@4"),
    (RetrievalEvaluation(ks=[1, 4]), "t2i_recall@4"),
    (ZeroShotEvaluation(templates=["a {} picture.", "{}"]), "top1"),
    (ClassifyEvaluation(), "top1"),
]


@pytest.mark.parametrize(("item", "metric"), ITEMS)
def test_a_comparison_measures_what_evaluate_does(
    item: EvaluateItem, metric: str, model: DualEncoder, data: FolderData
) -> None:
    """Classes that a split lacks, a head in an order of its own, missing and equal captions, and
    pictures that cannot be read."""
    (figures,) = evaluate(model, [item], data, seed=0, workers=0).values()
    found = measure_metric(model, item, open_split(data, "val"), metric)
    assert found.value == figures[metric]
    assert found.passed_over["skipped"] == figures["skipped"] == 1
    scores, own = found.scores()
    assert scores.shape == own.shape and len(scores) == len(found.hits)


def test_all_alike_is_found_by_neither(model: DualEncoder, data: FolderData) -> None:
    collapsed = tiny.build(tiny.arch_section(), seed=5)
    with torch.no_grad():
        for parameters in (collapsed.image.parameters(), collapsed.text.parameters()):
            for parameter in parameters:
                parameter.mul_(1e-12) if parameter.ndim > 1 else parameter.fill_(1.0)
    samples = open_split(data, "val")
    for item, metric in ITEMS[:4]:
        (figures,) = evaluate(collapsed, [item], data, seed=0, workers=0).values()
        assert measure_metric(collapsed, item, samples, metric).value == figures[metric]
        assert figures[metric] == 0.0


def test_a_class_that_the_head_does_not_know_is_an_error_in_both(data: FolderData) -> None:
    made = tiny.build(tiny.arch_section())
    samples = open_split(data, "val")
    with pytest.raises(ModelError, match="this model has none"):
        measure_metric(made, ClassifyEvaluation(), samples, "top1")
    made.set_head(torch.eye(2, made.spec.embed_dim), ["blue", "rad"], ["{}"])
    for run in (
        lambda: measure_metric(made, ClassifyEvaluation(), samples, "top1"),
        lambda: evaluate(made, [ClassifyEvaluation()], data, seed=0, workers=0),
    ):
        with pytest.raises(DataError, match="'red': unknown to the model's head; did you mean"):
            run()


# --- loops written out by hand, in float64 ----------------------------------------------------


def wrong_before(scores: list[float], right: set[int], tie: float) -> int:
    """Candidates that are wrong and not lower than the best right one by more than ``tie``."""
    best = max(scores[place] for place in right)
    return sum(place not in right and score >= best - tie for place, score in enumerate(scores))


def cosine(a: Tensor, b: Tensor) -> float:
    return math.fsum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def test_retrieval_both_ways_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(9, 6, generator=generator), dim=1)
    owner = [0, 0, 1, 3, 4, 4, 4, 6, 7, 8]  # 2 and 5 have no caption
    noise = torch.randn(len(owner), 6, generator=generator)
    texts = F.normalize(images[owner] + noise, dim=1)
    texts[8] = texts[3]  # an equal caption of another image
    images[5] = images[7]  # an image that is another one
    found = rank_retrieval(images, texts, torch.tensor(owner))
    i2t, t2i = [], []
    for image in range(9):
        right = {text for text in range(len(owner)) if owner[text] == image}
        if right:
            scores = [cosine(images[image], text) for text in texts]
            i2t.append(wrong_before(scores, right, 1e-6))
    for text in range(len(owner)):
        scores = [cosine(image, texts[text]) for image in images]
        t2i.append(wrong_before(scores, {owner[text]}, 1e-6))
    assert found.i2t_q.tolist() == i2t and found.t2i_m.tolist() == t2i
    assert 0 in i2t and max(i2t) > 0, "the example tells something"
    for way, ranks in (("i2t", i2t), ("t2i", t2i)):
        scores_qc, own_qc = map(torch.cat, zip(*found.blocks(way, torch.tensor(10.0)), strict=True))
        by_scores = [
            wrong_before(row.tolist(), set(own.nonzero()[:, 0].tolist()), 1e-5)
            for row, own in zip(scores_qc, own_qc, strict=True)
        ]
        assert by_scores == ranks


def test_classes_equal_a_loop_ties_counted_against_the_model() -> None:
    logits = torch.tensor([[3.0, 1.0, 3.0], [0.0, 0.0, 0.0], [1.0, 5.0, 2.0], [9.0, 1.0, 1.0]])
    labels = [0, 1, 1, 2]
    found = rank_classes(logits, torch.tensor(labels))
    loop = [
        wrong_before(row, {label}, 0.0) for row, label in zip(logits.tolist(), labels, strict=True)
    ]
    assert found.ranks_n.tolist() == loop == [1, 2, 0, 2]
    scores, own = map(torch.cat, zip(*found.blocks(), strict=True))
    assert torch.equal(scores, logits) and own.nonzero()[:, 1].tolist() == labels


@pytest.mark.parametrize("kind", ["zero_shot", "classify", "probe"])
def test_classifiers_of_a_model_equal_a_loop(
    kind: str, model: DualEncoder, data: FolderData
) -> None:
    val = embed_split(model, open_split(data, "val"), batch=7, workers=0)
    assert val.classes is not None and val.labels is not None
    if kind == "probe":
        train = embed_split(model, open_split(data, "train"), batch=7, workers=0)
        assert train.classes is not None
        item = ProbeEvaluation(c=10.0)
        found, probe = rank_probe(model, item, val, train, seed=0, split="val")
        names, rows, bias = train.classes, probe.weight_cd, probe.bias_c
        shift = probe.mean_d
        assert probe.samples == 20
    else:
        shift = torch.zeros(model.spec.embed_dim)
        if kind == "classify":
            assert model.head is not None
            found = rank_labels(model, ClassifyEvaluation(), val, split="val")
            names, rows = list(model.spec.classes), model.head.weight.detach()
            bias = model.head.bias.detach()
        else:
            templates = ["a {} picture.", "{}"]
            found = rank_labels(model, ZeroShotEvaluation(templates=templates), val, split="val")
            names, bias, made = val.classes, torch.zeros(3), []
            for name in names:
                ids = tiny.tokens(model, [template.format(name) for template in templates])
                with torch.no_grad():
                    made.append(F.normalize(model.encode_text(ids), dim=-1).mean(0))
            rows = F.normalize(torch.stack(made), dim=-1)
    scale = 1.0 if kind == "probe" else math.exp(model.logit_scale.item())
    loop = []
    for row, label in zip(val.inputs_nw, val.labels.tolist(), strict=True):
        scores = [
            scale * cosine(row.double() - shift.double(), weight.double()) + float(bias[number])
            for number, weight in enumerate(rows)
        ]
        loop.append(wrong_before(scores, {names.index(val.classes[label])}, 0.0))
    assert found.ranks_n.tolist() == loop
    assert len(set(loop)) > 1, "the example tells something"


def test_captions_that_are_cut_are_counted_by_both(model: DualEncoder, tmp_path: Path) -> None:
    for index in range(3):
        Image.new("RGB", (32, 32), (80 * index, 0, 0)).save(tmp_path / f"{index}.png")
    texts = ["a <end_of_text> b", "word " * 200, "short"]
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = FolderData(val=str(tmp_path))
    item = RetrievalEvaluation(ks=[1])
    (figures,) = evaluate(model, [item], section, seed=0, workers=0).values()
    found = measure_metric(model, item, open_split(section, "val"), "i2t_recall@1")
    counts = {"captions_ended_early": 1, "captions_too_long": 1}
    assert found.passed_over == counts == {name: figures[name] for name in counts}
