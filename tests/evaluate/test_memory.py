"""An evaluation's scores come by blocks of a size that the recipe says; it moves no figure."""

from collections.abc import Iterator

import pytest
import torch

import ptft
from ptft.compare.metric import calibrated, measure_metric
from ptft.data import open_split
from ptft.evaluate import embed_texts, ranks
from ptft.evaluate.label_scores import LabelScores, label_figures, label_ranks, picture_ranks
from ptft.evaluate.ranks import SCORE_BYTES, SCORES_AT_ONCE, scores_at_once, scores_within
from ptft.model import DualEncoder
from ptft.recipe import RetrievalEvaluation, RunSection, ScenesData, ZeroShotEvaluation
from tests.support import tiny

SCENES = ScenesData(size=32, train=8, val=24, test=4)


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return tiny.build(tiny.arch_section())


def test_the_setting_holds_inside_and_is_the_default_outside() -> None:
    assert RunSection().evaluate_mb << 20 == SCORES_AT_ONCE * SCORE_BYTES
    with scores_within(6):
        assert scores_at_once() == (6 << 20) // SCORE_BYTES
        with scores_within(1):
            assert max(map(_size, ranks.blocks_of(10**6, 1000))) == (1 << 20) // SCORE_BYTES // 1000
        assert scores_at_once() == (6 << 20) // SCORE_BYTES
    assert scores_at_once() == SCORES_AT_ONCE


def _size(rows: slice) -> int:
    return rows.stop - rows.start


@pytest.mark.parametrize("block", [1, 50, 100])
def test_figures_of_several_classes_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 7, generator=draw).mul(3).round()  # ties
    has = torch.rand(40, 7, generator=draw) < 0.3
    thresholds = torch.rand(7, generator=draw, dtype=torch.float64)
    scores = LabelScores(logits, has, [f"c{n}" for n in range(7)], torch.arange(40), thresholds)

    def measured() -> list[object]:
        pictures = [part.tolist() for part in picture_ranks(scores)]
        return [label_figures(scores), label_ranks(scores).tolist(), pictures]

    whole = measured()
    monkeypatch.setattr(ranks, "SCORES_AT_ONCE", block)
    assert measured() == whole


@pytest.mark.parametrize(
    ("item", "metric"),
    [
        (RetrievalEvaluation(), "i2t_recall@1"),
        (RetrievalEvaluation(), "t2i_recall@1"),
        (ZeroShotEvaluation(), "top1"),
    ],
)
def test_a_comparison_calibrates_alike_whether_or_not_scores_are_kept(
    monkeypatch: pytest.MonkeyPatch,
    model: DualEncoder,
    item: RetrievalEvaluation | ZeroShotEvaluation,
    metric: str,
) -> None:
    data = SCENES if metric != "top1" else SCENES.model_copy(update={"label": "shape"})
    samples = open_split(data, "val")
    found = measure_metric(model, item, samples, metric)
    assert found.count == found.scores()[0].numel()
    whole = calibrated(found, found)
    monkeypatch.setattr(ranks, "SCORES_AT_ONCE", found.count - 1)
    assert calibrated(found, found) == pytest.approx(whole, rel=1e-4)


def test_texts_are_embedded_once_each_in_any_order(model: DualEncoder) -> None:
    texts = ["b", "a longer one", "a", "b", "the longest of them all", "a", "c", "b"]
    found = embed_texts(model, texts, batch=2)
    for text, row in zip(texts, found, strict=True):
        assert torch.allclose(row, embed_texts(model, [text], batch=1)[0], atol=1e-6)
    assert embed_texts(model, [], batch=2).shape == (0, model.spec.embed_dim)


def test_what_the_recipe_says_reaches_the_scores(
    monkeypatch: pytest.MonkeyPatch, model: DualEncoder
) -> None:
    seen: list[int] = []
    true = ranks.blocks_of

    def blocks(queries: int, candidates: int) -> Iterator[slice]:
        seen.append(scores_at_once())
        return true(queries, candidates)

    monkeypatch.setattr("ptft.evaluate.ranks.blocks_of", blocks)
    recipe = {"name": "a", "data": SCENES.model_dump(), "evaluate": [{"kind": "retrieval"}]}
    figures = [ptft.evaluate(model, recipe, run={"evaluate_mb": size}) for size in (2, 256)]
    assert set(seen) == {(2 << 20) // SCORE_BYTES, SCORES_AT_ONCE}
    assert figures[0] == figures[1]
