"""Answers among few candidates, as they would be among many."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import betabinom, hypergeom

from ptft.compare.candidates import (
    answers_among,
    answers_of_pictures,
    candidates_told,
    expected_told,
    found_among,
    found_in_part,
    moved_answers,
)
from ptft.compare.gathered import gather
from ptft.compare.kept import KeptSet, kept_belief
from ptft.compare.metric import Measurement, measure_metric
from ptft.compare.posterior import Belief
from ptft.compare.results import Cell
from ptft.data import open_split
from ptft.evaluate.ranks import RetrievalRanks
from ptft.recipe import RetrievalEvaluation, ScenesData
from tests.support.comparisons import cell, choice_of
from tests.support.tiny import build, towers_section


@pytest.mark.parametrize(("wrong", "others", "k"), [(31, 511, 10), (127, 31, 10), (9, 9, 1)])
def test_a_score_is_the_chance_of_a_beta_binomial_number(wrong: int, others: int, k: int) -> None:
    ranks = np.arange(wrong + 1)
    found = found_among(ranks, wrong, others, k)
    expected = betabinom.cdf(k - 1, others, ranks + 0.5, wrong - ranks + 0.5)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (np.diff(found) <= 1e-12).all()


@pytest.mark.parametrize(
    ("wrong", "others", "k"), [(31, 31, 5), (511, 255, 5), (31, 4, 10), (9, 0, 1)]
)
def test_of_a_part_of_the_candidates_the_chance_is_exact(wrong: int, others: int, k: int) -> None:
    ranks = np.arange(wrong + 1)
    found = found_in_part(ranks, wrong, others, k)
    np.testing.assert_allclose(found, hypergeom.cdf(k - 1, wrong, ranks, others), atol=1e-9)
    if others == wrong:
        np.testing.assert_allclose(found, ranks < k, atol=1e-12)


def test_of_fewer_candidates_than_count_as_found_every_answer_is_right() -> None:
    np.testing.assert_allclose(found_among(np.arange(32), 31, 4, 5), 1.0)
    np.testing.assert_allclose(moved_answers(np.arange(32), 31, 4, 5), 1.0)


@pytest.mark.parametrize(("wrong", "others"), [(0, 0), (0, 99), (1, 0), (63, 1_000_000)])
def test_next_to_no_candidates_and_very_many_give_answers(wrong: int, others: int) -> None:
    told = moved_answers(np.array([0, wrong]), wrong, others, 1)
    assert np.isfinite(told).all() and told[0] >= told[1]


@pytest.mark.parametrize("spread", [0.7, 1.0, 1.5])  # of right answers; the curve has 1
@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize(("few", "many", "k"), [(32, 512, 10), (512, 512, 10), (512, 128, 5)])
def test_the_mean_is_the_recall_that_a_drawn_retrieval_has(
    spread: float, apart: float, few: int, many: int, k: int
) -> None:
    rng = np.random.default_rng(0)
    right = apart + spread * rng.standard_normal(3000)
    above = rng.standard_normal((len(right), max(few, many) - 1)) > right[:, None]
    told = moved_answers(above[:, : few - 1].sum(axis=1), few - 1, many - 1, k)
    recall = (above[:, : many - 1].sum(axis=1) < k).mean()
    assert told.mean() == pytest.approx(recall, abs=0.04)


def test_an_error_moves_as_the_curve_does() -> None:
    """The spread of means over draws of queries is what the answers say."""
    rng = np.random.default_rng(1)
    right = 2.5 + rng.standard_normal((200, 100))
    ranks = (rng.standard_normal((200, 100, 63)) > right[:, :, None]).sum(axis=2)
    rows = [moved_answers(row, 63, 511, 10) for row in ranks]
    said = np.mean([row.std() / 10 for row in rows])
    assert np.std([row.mean() for row in rows]) == pytest.approx(said, rel=0.15)


@pytest.mark.parametrize("way", ["i2t_", "t2i_", ""])
def test_a_measured_retrieval_is_read_among_as_many_as_test_has(way: str) -> None:
    samples = open_split(ScenesData(size=32, val=32, test=16, seed=0), "val", seed=0)
    measured = measure_metric(
        build(towers_section()), RetrievalEvaluation(), samples, f"{way}recall@5"
    )
    assert isinstance(measured, Measurement) and isinstance(measured.ranks, RetrievalRanks)
    ranks = np.concatenate([measured.ranks.of(one).numpy() for one in measured.ways])
    told = answers_among(measured, 4.0)
    np.testing.assert_allclose(told, moved_answers(ranks, 31, 127, 5), atol=1e-6)
    assert len(told) == len(measured.hits)
    for times in (1.0, 1.09):  # as many
        assert answers_among(measured, times) == measured.hits.double().tolist()
    np.testing.assert_allclose(
        answers_among(measured, 0.5), found_in_part(ranks, 31, 15, 5), atol=1e-6
    )


def test_wrong_candidates_are_counted_without_ones_own() -> None:
    """Three pictures with two, no and one caption."""
    none = torch.zeros(3, 1)
    ranks = RetrievalRanks(
        i2t_q=torch.zeros(2, dtype=torch.int64),
        t2i_m=torch.zeros(3, dtype=torch.int64),
        captions_n=torch.tensor([2, 0, 1]),
        images_nd=none,
        texts_md=none,
        image_of_text_m=torch.tensor([0, 0, 2]),
    )
    assert ranks.wrong("i2t").tolist() == [1, 2]
    assert ranks.wrong("t2i").tolist() == [2, 2, 2]


def test_all_answers_of_a_picture_with_several_captions_count_as_one() -> None:
    """By a loop over pictures: three with two, no and one caption."""
    captions, own = [2, 0, 1], [0, 0, 2]
    ranks = RetrievalRanks(
        i2t_q=torch.tensor([0, 3]),
        t2i_m=torch.tensor([2, 0, 0]),
        captions_n=torch.tensor(captions),
        images_nd=torch.zeros(3, 1),
        texts_md=torch.zeros(3, 1),
        image_of_text_m=torch.tensor(own),
    )
    hits = torch.tensor([1, 0, 0, 1, 1]).bool()
    measured = measured_of(ranks, hits)
    told = answers_of_pictures(measured, "10011")
    expected = []
    for picture, answer in ((0, 1), (2, 0)):
        of_captions = [hit for hit, whose in zip([0, 1, 1], own, strict=True) if whose == picture]
        expected.append((answer + sum(of_captions)) * 2 / 5)
    assert told == pytest.approx([*expected, *expected])
    assert np.mean(told) == pytest.approx(hits.double().mean().item())
    one_each = replace(ranks, captions_n=torch.tensor([1, 0, 1]), t2i_m=torch.tensor([2, 0]))
    assert answers_of_pictures(measured_of(one_each, hits[:4]), "1001") == "1001"


def measured_of(ranks: RetrievalRanks, hits: torch.Tensor) -> Measurement:
    spec = build(towers_section()).spec
    return Measurement(ranks, hits, ("i2t", "t2i"), 0, torch.tensor(1.0), spec)


def test_the_rule_goes_by_them_where_hits_alone_tell_nothing() -> None:
    def arm(name: str, of_test: float) -> Cell:
        one = cell(name, 1.0, queries=32)
        return replace(one, test=of_test, val_asked=[of_test + 0.01] * 32)

    found = choice_of(
        gather([arm("zero_shot", 0.2), arm("full", 0.7), arm("lora", 0.6)], confidence=0.95)
    )
    assert found.arm == "full"
    assert found.figures["full"] == pytest.approx(0.71, abs=0.01)


def test_a_report_says_that_expected_recall_is_among_the_pictures_of_test() -> None:
    told = expected_told("i2t_recall@10", 1512)
    assert told is not None and told.startswith("i2t_recall@10 ")
    assert told.endswith("among the 1,512 pictures of test.")
    assert expected_told("top1", 1512) is None


def test_figures_that_count_as_among_others_are_told() -> None:
    sets = {"before": KeptSet(pairs=True), "classes": KeptSet()}
    told = candidates_told(sets, {"before": (1000, 2500), "classes": (10, 20)})
    assert told is not None
    assert told.endswith("as among those of test: before 1,000 and 2,500.")
    for as_many in ((50, 50), (50, 54)):
        assert candidates_told(sets, {"before": as_many, "classes": (10, 20)}) is None
    assert candidates_told(sets, {"before": (54, 50), "classes": (10, 20)}) is not None


def test_more_candidates_on_test_lower_what_a_weaker_arm_keeps() -> None:
    rng = np.random.default_rng(2)
    right = rng.standard_normal(400)
    wrong = rng.standard_normal((400, 99))
    ranks = [(wrong > right[:, None] + apart).sum(axis=1)[None] for apart in (3.0, 2.6)]

    def kept(others: int) -> Belief:
        rows = [np.stack([moved_answers(row, 99, others, 5) for row in one]) for one in ranks]
        answers = [{"before": np.hstack([row, row])} for row in rows]
        return kept_belief(answers, first=0, sets={"before": KeptSet(pairs=True)}, of_val=True)

    here, there = kept(99), kept(399)
    assert here.mean_a[0] == there.mean_a[0] == 1.0
    assert there.mean_a[1] < here.mean_a[1] - 0.02
    assert there.deviation_a[1] > here.deviation_a[1]
