"""Figures by class, the calibration curve and the worst mistakes, beside scikit-learn."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.evaluate.class_answers import ClassAnswers
from ptft.evaluate.class_ranks import rank_classes
from ptft.evaluate.figures import accuracy_figures, calibration_error
from ptft.pages.classes import confused_pairs, confusion
from tests.support.runs import run

CLASSES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def answers() -> ClassAnswers:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (80,), generator=generator)  # none of d
    logits = 3 * torch.randn(80, 4, generator=generator)
    logits[torch.arange(80), labels] += 2
    logits[:, 3] -= 4
    return ClassAnswers.of(rank_classes(logits, labels), torch.arange(80) + 100, CLASSES)


def test_figures_by_class_are_scikit_learns(answers: ClassAnswers) -> None:
    precision, recall, f1, support = precision_recall_fscore_support(
        answers.labels_n, answers.said_n, labels=range(4), zero_division=0.0
    )
    found = answers.per_class()
    assert list(found) == CLASSES
    for place, one in enumerate(found.values()):
        assert one.images == support[place]
        assert one.recall == pytest.approx(recall[place])
        assert one.precision == pytest.approx(precision[place])
        assert one.f1 == pytest.approx(f1[place])


def test_the_bins_of_the_curve_are_those_of_the_calibration_error() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (200,), generator=generator)
    logits = 2 * torch.randn(200, 4, generator=generator)
    ranks = rank_classes(logits, labels)
    bins = ClassAnswers.of(ranks, torch.arange(200), CLASSES).calibration()
    assert sum(one.images for one in bins) == 200
    gap = sum(one.images * abs(one.accuracy - one.confidence) for one in bins) / 200
    assert gap == pytest.approx(calibration_error(logits, labels))
    top1 = sum(one.images * one.accuracy for one in bins) / 200
    assert top1 == pytest.approx(accuracy_figures(ranks)["top1"])
    assert all(one.low < one.confidence <= one.high for one in bins)


def test_the_worst_mistakes_are_the_surest(answers: ClassAnswers) -> None:
    rows = answers.worst(5)
    wrong = [n for n in range(80) if answers.labels_n[n] != answers.said_n[n]]
    assert rows == sorted(wrong, key=lambda n: -answers.sure_n[n])[:5]


def test_confusion_counts_every_picture_once(answers: ClassAnswers) -> None:
    table = confusion(answers.labels_n, answers.said_n, CLASSES)
    assert table.names == CLASSES and table.note == ""
    assert sum(sum(row.counts) for row in table.rows) == 80
    assert [row.total for row in table.rows] == np.bincount(answers.labels_n, minlength=4).tolist()
    few = confusion(answers.labels_n, answers.said_n, CLASSES, most=2)
    assert few.names[-1] == "others" and few.note == "the 2 of 4 classes with most mistakes"
    for row in few.rows:
        whole = next(one for one in table.rows if one.name == row.name)
        assert sum(row.counts) == row.total == whole.total
    pairs = confused_pairs(answers.labels_n, answers.said_n, CLASSES, most=100)
    wrong = int((answers.labels_n != answers.said_n).sum())
    assert sum(pair.count for pair in pairs) == wrong
    assert [pair.count for pair in pairs] == sorted((p.count for p in pairs), reverse=True)


def test_the_command_prints_them_and_writes_a_page(tmp_path: Path) -> None:
    evaluate = [{"kind": "classify", "name": "own"}, {"kind": "zero_shot", "split": "test"}]
    run(
        tmp_path / "run",
        objective__kind="classify",
        optim__samples_seen=16,
        evaluate=evaluate,
        run__neighbours=False,
    )
    page = tmp_path / "page.html"
    words = ["evaluate", str(tmp_path / "run"), "--per-class", "--page", str(page)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    for name in ("own", "zero_shot"):
        by_class = found[name]["per_class"].values()
        right = sum(one["recall"] * one["images"] for one in by_class)
        assert right / found[name]["images"] == pytest.approx(found[name]["top1"])
    text = page.read_text()
    assert text.count("class by class</h2>") == 2 and "Calibration" in text
    wrong = [int(n.replace(",", "")) for n in re.findall(r"<p>([\d,]+) of 16 pictures", text)]
    assert len(wrong) == 2
    galleries = re.findall(r'<ul class="gallery">.*?</ul>', text, re.S)
    shown = [one.count('<img src="data:image/jpeg;base64,') for one in galleries]
    assert shown == [min(24, n) for n in wrong]
