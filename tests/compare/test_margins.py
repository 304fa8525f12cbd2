"""Answers about classes by how much they were right or wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from ptft.compare.margins import answers_by_margin, margins_told, smoothed
from ptft.compare.metric import Measurement
from ptft.evaluate.class_ranks import rank_classes
from ptft.recipe import ZeroShotEvaluation
from tests.support.comparisons import comparison
from tests.support.tiny import build, towers_section


def measured(logits_qc: torch.Tensor, labels_q: torch.Tensor) -> Measurement:
    ranks = rank_classes(logits_qc, labels_q)
    spec = build(towers_section()).spec
    return Measurement(ranks, ranks.ranks_n < 1, (), 0, torch.tensor(1.0), spec)


def test_answers_are_those_of_a_loop_written_out() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((40, 5)), rng.integers(0, 5, 40)
    parts = [
        measured(torch.tensor(logits[own]), torch.tensor(labels[own]))
        for own in (slice(0, 12), slice(12, 40))
    ]
    margins = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        margins.append(row[label] - max(row[:label] + row[label + 1 :]))
    low, high = np.quantile(margins, [0.25, 0.75])
    spread = min(np.std(margins), (high - low) / (stats.norm.ppf(0.75) - stats.norm.ppf(0.25)))
    expected = [stats.norm.cdf(one / (spread * 40 ** (-1 / 3))) for one in margins]
    first, second = answers_by_margin(parts)
    np.testing.assert_allclose([*first, *second], expected, atol=1e-6)
    assert (len(first), len(second)) == (12, 28)


def test_what_scales_scores_changes_nothing_and_right_stays_above_wrong() -> None:
    margins = np.random.default_rng(1).standard_normal(30) + 0.3
    answers = smoothed(margins)
    np.testing.assert_allclose(smoothed(100.0 * margins), answers)
    assert ((answers > 0.5) == (margins > 0.0)).all()


@pytest.mark.parametrize("figure", [0.3, 0.6, 0.85])
@pytest.mark.parametrize("margin", [stats.norm, stats.expon, stats.t(3)])
def test_of_few_they_tell_a_models_figure_better_than_right_and_wrong(
    margin: Any, figure: float
) -> None:
    drawn = margin.rvs(size=(1000, 24), random_state=2) - margin.ppf(1.0 - figure)
    told = np.array([smoothed(row).mean() for row in drawn])
    plain = (drawn > 0.0).mean(axis=1)
    assert ((told - figure) ** 2).mean() < ((plain - figure) ** 2).mean()


def test_many_tell_what_right_and_wrong_do() -> None:
    margins = np.random.default_rng(3).standard_exponential(20_000) - 0.5
    assert smoothed(margins).mean() == pytest.approx((margins > 0.0).mean(), abs=0.01)


@pytest.mark.parametrize("margins", [[0.4], [-1.0, -1.0, -1.0], [2.0, 2.0, 2.0, 2.0, -5.0]])
def test_where_margins_do_not_spread_answers_are_right_or_wrong(margins: list[float]) -> None:
    row = np.array(margins)
    np.testing.assert_array_equal(smoothed(row), row > 0.0)


def test_a_model_whose_scores_are_none_answers_nothing_rightly() -> None:
    logits = torch.full((6, 3), float("nan"))
    assert answers_by_margin([measured(logits, torch.zeros(6, dtype=torch.int64))]) == [[0.0] * 6]


def test_of_a_single_class_there_are_no_margins() -> None:
    one = measured(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64))
    assert answers_by_margin([one]) == []


def test_a_report_says_what_is_expected_of_classes_alone(tmp_path: Path) -> None:
    captions = comparison(tmp_path)
    assert margins_told(captions) is None
    classes = captions.model_copy(update={"evaluate": [ZeroShotEvaluation()]})
    told = margins_told(classes)
    assert told is not None and told.startswith("What is expected of top1 ")
