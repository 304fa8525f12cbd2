"""Accuracy and calibration against scikit-learn, a loop, and open_clip's own figures."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from ptft.errors import DataError
from ptft.evaluate import ranks
from ptft.evaluate.calibrate import fit_temperature
from ptft.evaluate.class_ranks import rank_classes
from ptft.evaluate.figures import accuracy_figures, calibration_error


def scores(samples: int = 300, classes: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes - 1, (samples,), generator=generator)  # the last never occurs
    logits = torch.randn(samples, classes, generator=generator)
    logits[torch.arange(samples), labels] += 1.5
    return logits, labels


def test_accuracies_equal_scikit_learn() -> None:
    logits, labels = scores()
    figures = accuracy_figures(rank_classes(logits, labels))
    every = np.arange(12)
    for key, k in (("top1", 1), ("top5", 5)):
        expected = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=every)
        assert figures[key] == pytest.approx(expected, abs=1e-12)
    # Only over classes that occur: scikit-learn warns where a predicted class never does.
    kept = logits.clone()
    kept[:, 11] = -torch.inf
    mean = accuracy_figures(rank_classes(kept, labels))["mean_per_class"]
    expected = balanced_accuracy_score(labels.numpy(), kept.argmax(1).numpy())
    assert mean == pytest.approx(expected, abs=1e-12)
    assert (figures["images"], figures["classes"], figures["classes_seen"]) == (300, 12, 11)
    assert figures["chance"] == 1 / 12


def test_calibration_error_equals_a_loop() -> None:
    logits, labels = scores()
    logits = logits * 2
    p = torch.softmax(logits.double(), 1)
    error = 0.0
    for low in range(15):
        gap, number = 0.0, 0
        for i in range(len(labels)):
            confidence = float(p[i].max())
            if low / 15 < confidence <= (low + 1) / 15:
                gap += float(p[i].argmax() == labels[i]) - confidence
                number += 1
        if number:
            error += number / len(labels) * abs(gap / number)
    assert calibration_error(logits, labels) == pytest.approx(error, abs=1e-12)
    assert error > 0.02
    right = torch.full((4, 3), -100.0)
    right[torch.arange(4), torch.tensor([0, 1, 2, 0])] = 100.0
    assert calibration_error(right, torch.tensor([0, 1, 2, 0])) == pytest.approx(0.0)
    assert calibration_error(right, torch.tensor([1, 2, 0, 1])) == pytest.approx(1.0)


def test_equal_logits_are_worth_nothing() -> None:
    for same in (0.0, torch.nan):
        ranks = rank_classes(torch.full((10, 8), same), torch.zeros(10, dtype=torch.int64))
        figures = accuracy_figures(ranks)
        assert (figures["top1"], figures["top5"], figures["mean_per_class"]) == (0.0, 0.0, 0.0)


def test_labels_out_of_range_and_none_at_all_are_errors() -> None:
    with pytest.raises(DataError, match="allowed with 3 classes: 0 to 2"):
        rank_classes(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(DataError, match="no sample of this split has a label"):
        rank_classes(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert "top5" not in accuracy_figures(rank_classes(torch.eye(3), torch.arange(3)))


@pytest.mark.parametrize("block", [1, 30, 1234])
def test_blocks_give_the_figures_of_the_whole(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    logits, labels = scores()
    logits[:40] = logits[:40].round()  # ties
    own = torch.nn.functional.one_hot(labels, 12).bool()

    def measured() -> tuple[object, ...]:
        found = rank_classes(logits, labels)
        ranks = (found.ranks_n.tolist(), found.sure_n.tolist(), found.right_n.tolist())
        return accuracy_figures(found), *ranks, fit_temperature(logits, own)

    whole = measured()
    monkeypatch.setattr(ranks, "SCORES_AT_ONCE", block)
    assert measured() == whole
    sizes = [len(part) for part, _ in rank_classes(logits, labels).blocks()]
    assert sum(sizes) == 300 and max(sizes) == max(1, block // 12)
