"""Figures of classes that do not exclude each other, held against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
)

from ptft.errors import DataError
from ptft.evaluate.label_answers import LabelAnswers
from ptft.evaluate.label_scores import (
    LabelScores,
    average_precisions,
    f1_scores,
    label_figures,
    label_ranks,
    picture_ranks,
)
from ptft.evaluate.thresholds import best_thresholds, prior_bias

N, C = 60, 7


def scores(seed: int, *, ties: bool = False, thresholds: bool = True) -> LabelScores:
    """Scores that say something of what is there; with ties in whole logits. The last class is of
    no sample, and the first sample of no class."""
    draw = torch.Generator().manual_seed(seed)
    has = torch.rand(N, C, generator=draw) < torch.linspace(0.1, 0.6, C)
    has[:, -1], has[0] = False, False
    logits = 2.0 * torch.randn(N, C, generator=draw) + 2.0 * has.float() - 1.0
    if ties:
        logits = logits.round()
    told = torch.rand(C, generator=draw, dtype=torch.float64) * 0.8 + 0.1 if thresholds else None
    return LabelScores(logits, has, [f"c{n}" for n in range(C)], torch.arange(N), told)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_figures_are_those_of_scikit_learn(seed: int, ties: bool) -> None:
    found = scores(seed, ties=ties)
    has, sure = found.has_nc.numpy(), found.probabilities_nc.numpy()
    seen = has.any(axis=0)
    figures = label_figures(found)
    wanted = [average_precision_score(has[:, c], sure[:, c]) for c in np.flatnonzero(seen)]
    ours = average_precisions(found.logits_nc, found.has_nc).numpy()
    np.testing.assert_allclose(ours[seen], wanted, rtol=1e-12)
    assert np.isnan(ours[~seen]).all()
    assert figures["map"] == pytest.approx(
        average_precision_score(has[:, seen], sure[:, seen], average="macro"), rel=1e-12
    )
    assert found.thresholds_c is not None
    for name, told in (("", sure >= found.thresholds_c.numpy()), ("_even", sure >= 0.5)):
        assert figures[f"micro_f1{name}"] == pytest.approx(f1_score(has, told, average="micro"))
        assert figures[f"macro_f1{name}"] == pytest.approx(
            f1_score(has[:, seen], told[:, seen], average="macro", zero_division=0)
        )
    per_class = LabelAnswers(found).per_class()
    assert [one.f1 for one in per_class.values()] == pytest.approx(
        f1_score(has, sure >= found.thresholds_c.numpy(), average=None, zero_division=0)
    )
    assert per_class["c6"].average_precision is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_no_other_threshold_has_a_better_f1(seed: int, ties: bool) -> None:
    found = scores(seed, ties=ties)
    thresholds = best_thresholds(found.logits_nc, found.has_nc)
    _, f1 = f1_scores(found.told_nc(thresholds), found.has_nc)
    sure = found.probabilities_nc.numpy()
    for number in range(C - 1):
        precision, recall, _ = precision_recall_curve(found.has_nc[:, number], sure[:, number])
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        assert float(f1[number]) == pytest.approx(best)
    assert thresholds[-1] == 0.5  # nothing to choose by
    gap = np.abs(sure - thresholds.numpy()).min(axis=0)
    assert (gap[:-1] > 1e-6).all()  # rounding moves none across


def test_one_label_a_sample_is_plain_accuracy() -> None:
    """Top-1 of labels is that of classes where each sample has one, and so is its chance."""
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(N, C, generator=draw), torch.randint(C, (N,), generator=draw)
    has = torch.nn.functional.one_hot(labels, C).bool()
    found = LabelScores(logits, has, list("abcdefg"), torch.arange(N))
    figures = label_figures(found)
    assert figures["top1"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert figures["chance"] == pytest.approx(1 / C) and figures["all_first"] == figures["top1"]
    assert "ece" not in figures and "micro_f1" not in figures  # similarities have no threshold


def test_a_tie_counts_against_the_label() -> None:
    has = torch.tensor([[True, True, False, False]])
    found = LabelScores(torch.tensor([[2.0, 1.0, 1.0, 0.0]]), has, list("abcd"), torch.zeros(1))
    assert label_ranks(found).tolist() == [0, 1]
    assert [one.tolist() for one in picture_ranks(found)] == [[0], [1]]  # the last of them
    flat = LabelScores(torch.zeros(1, 4), has, list("abcd"), torch.zeros(1))
    assert label_figures(flat)["top1"] == 0.0 and label_figures(flat)["map"] == 1.0


def test_guessing_reaches_what_is_said() -> None:
    """Average precision of scores that know nothing is about the share that has the class."""
    draw = torch.Generator().manual_seed(0)
    has = torch.rand(20_000, 2, generator=draw) < torch.tensor([0.2, 0.5])
    scored = torch.randn(20_000, 2, generator=draw)
    guessed = LabelScores(scored, has, ["a", "b"], torch.arange(20_000))
    figures = label_figures(guessed)
    assert figures["map"] == pytest.approx(figures["map_chance"], abs=0.01)
    assert figures["top1"] == pytest.approx(figures["chance"], abs=0.02)


def test_a_split_without_any_class_is_an_error() -> None:
    nothing = LabelScores(
        torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.bool), ["a", "b"], torch.arange(3)
    )
    with pytest.raises(DataError, match="no sample of this split has a class"):
        label_figures(nothing)


def test_the_bias_gives_each_class_its_share() -> None:
    logits = 30.0 + 5.0 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    found = (logits.double() + prior_bias(logits, wanted)).sigmoid().mean(dim=0)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


def test_the_worst_lie_farthest_beyond_their_thresholds() -> None:
    logits = torch.tensor([[3.0, -1.0], [-4.0, 2.0]])
    has = torch.tensor([[False, True], [True, True]])
    told = torch.tensor([0.5, 0.5], dtype=torch.float64)
    answers = LabelAnswers(LabelScores(logits, has, ["a", "b"], torch.arange(2), told))
    assert answers.worst(5) == [(1, 0), (0, 0), (0, 1)]
    assert answers.worst(1) == [(1, 0)]
    assert sum(one.images for one in answers.calibration()) == 4
