"""Recall@k against an example counted by hand and a float64 loop."""

import math

import pytest
import torch
from torch import Tensor

from ptft.errors import DataError
from ptft.evaluate import ranks
from ptft.evaluate.ranks import TIE, caption_ranks, image_ranks
from ptft.evaluate.retrieval import retrieval_figures


def normal(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=1)


def by_hand(images: Tensor, texts: Tensor, image_of_text: list[int]) -> tuple[list, list]:
    """Ranks by a plain loop in float64, without ties."""
    scores = images.double() @ texts.double().T
    i2t = []
    for i in range(len(images)):
        order = sorted(range(len(texts)), key=lambda t: -scores[i, t])
        i2t.append(next(place for place, t in enumerate(order) if image_of_text[t] == i))
    t2i = []
    for t in range(len(texts)):
        order = sorted(range(len(images)), key=lambda i: -scores[i, t])
        t2i.append(order.index(image_of_text[t]))
    return i2t, t2i


@pytest.mark.parametrize("block", [7, 1 << 24])
def test_ranks_equal_a_float64_loop(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(ranks, "SCORES_AT_ONCE", block * 100)  # also in uneven pieces
    images = normal(53, 16, 0)
    owner = [i for i in range(53) for _ in range(1 + i % 4)]
    texts = torch.nn.functional.normalize(images[owner] + 1.2 * normal(len(owner), 16, 1), dim=1)
    i2t, t2i = by_hand(images, texts, owner)
    assert image_ranks(images, texts, torch.tensor(owner)).tolist() == i2t
    assert caption_ranks(images, texts, torch.tensor(owner)).tolist() == t2i
    figures = retrieval_figures(images, texts, torch.tensor(owner), ks=[1, 5])
    assert figures["i2t_recall@5"] == pytest.approx(sum(r < 5 for r in i2t) / 53, abs=1e-12)
    assert figures["t2i_recall@1"] == pytest.approx(sum(r < 1 for r in t2i) / len(t2i), abs=1e-12)
    assert 0.05 < figures["i2t_recall@1"] < 1.0, "the example tells something"
    assert figures["i2t_median_rank"] == sorted(i2t)[26] + 1


def test_several_captions_counted_by_hand() -> None:
    """Angles on a circle: image 0 at 0, image 1 at 90 degrees; the captions of 0 at 80 and 10."""
    images = _at([0, 90])
    texts = _at([80, 10, 70])
    owner = torch.tensor([0, 0, 1])
    # i2t: image 0 finds its caption at 10 first. Image 1 meets the one at 80, which is image 0's.
    assert image_ranks(images, texts, owner).tolist() == [0, 1]
    # t2i: the one at 80 is nearer to image 1, the other two find their own.
    assert caption_ranks(images, texts, owner).tolist() == [1, 0, 0]
    figures = retrieval_figures(
        images, texts, owner, ks=[1, 2], caption_ids_m=torch.tensor([5, 6, 5])
    )
    assert figures == {
        "i2t_recall@1": 0.5,
        "i2t_recall@2": 1.0,
        "t2i_recall@1": pytest.approx(2 / 3),
        "t2i_recall@2": 1.0,
        # one of three texts: 2/3 for image 0, 1/3 for image 1; two of three: 1 and 2/3
        "i2t_chance@1": pytest.approx(1 / 2),
        "i2t_chance@2": pytest.approx(5 / 6),
        "t2i_chance@1": 0.5,
        "t2i_chance@2": 1.0,
        "i2t_median_rank": 1.5,
        "t2i_median_rank": 1.0,
        "images": 2,
        "captions": 3,
        "images_without_caption": 0,
        "duplicate_captions": 2,
    }


def test_a_collapsed_model_scores_nothing() -> None:
    same = normal(1, 64, 0)
    images = torch.nn.functional.normalize(same + 1e-9 * normal(200, 64, 1), dim=1)
    texts = torch.nn.functional.normalize(same + 1e-9 * normal(200, 64, 2), dim=1)
    figures = retrieval_figures(images, texts, torch.arange(200), ks=[1, 10])
    assert figures["i2t_recall@10"] == figures["t2i_recall@10"] == 0.0
    figures = retrieval_figures(images * torch.nan, texts, torch.arange(200), ks=[10])
    assert figures["i2t_recall@10"] == figures["t2i_recall@10"] == 0.0


def test_an_image_without_caption_is_no_query_but_a_candidate() -> None:
    images, texts = _at([0, 5, 90]), _at([4, 88])
    figures = retrieval_figures(images, texts, torch.tensor([0, 2]), ks=[1])
    assert figures["i2t_recall@1"] == 1.0
    assert figures["t2i_recall@1"] == 0.5, "the image at 5 degrees, without a caption, is nearer"
    assert figures["images_without_caption"] == 1
    with pytest.raises(DataError, match="no image of this split has one"):
        retrieval_figures(images, texts[:0], torch.empty(0, dtype=torch.int64), ks=[1])


def test_random_embeddings_reach_chance() -> None:
    owner = torch.arange(400).repeat_interleave(3)
    figures = retrieval_figures(normal(400, 32, 0), normal(1200, 32, 1), owner, ks=[40])
    for way in ("i2t", "t2i"):
        chance = figures[f"{way}_chance@40"]
        assert figures[f"{way}_recall@40"] == pytest.approx(chance, abs=0.045)


def _at(degrees: list[float]) -> Tensor:
    angles = [math.radians(degree) for degree in degrees]
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


def whole(images: Tensor, texts: Tensor, owner: Tensor) -> tuple[list[int], list[int]]:
    """Both ways by the whole matrix of scores and a mask of the right ones."""
    scores = images @ texts.T
    own = owner[None, :] == torch.arange(len(images))[:, None]
    best = scores.masked_fill(~own, -math.inf).amax(dim=1)
    before = ((scores < best[:, None] - TIE).logical_not() & ~own).sum(dim=1)
    i2t = torch.where(own.any(dim=1), before, len(texts))
    by_text = scores.T
    t2i = (by_text < by_text.gather(1, owner[:, None]) - TIE).logical_not().sum(dim=1) - 1
    return i2t.tolist(), t2i.tolist()


@pytest.mark.parametrize(
    ("block", "tile"), [(1, 100), (37, 4), (500, 7), (1 << 24, 1), (1 << 24, 100)]
)
def test_blocks_give_the_ranks_of_the_whole_matrix(
    monkeypatch: pytest.MonkeyPatch, block: int, tile: int
) -> None:
    """Images without a caption, captions in no order, ties, collapsed and broken embeddings."""
    monkeypatch.setattr(ranks, "SCORES_AT_ONCE", block)
    monkeypatch.setattr(ranks, "CANDIDATES_AT_ONCE", tile)
    generator = torch.Generator().manual_seed(3)
    for case in range(12):
        images, texts = normal(19, 8, case).double(), normal(31, 8, 100 + case).double()
        owner = torch.randint(0, 15, (31,), generator=generator)
        if case % 3 == 1:
            images[3], texts[:9] = images[5], texts[9]  # one may not tell these apart
        if case % 4 == 2:
            images[4] = texts[2] = math.nan
        if case == 11:
            images[:], texts[:] = images[0], images[0]
        expected = whole(images, texts, owner)
        assert image_ranks(images, texts, owner).tolist() == expected[0]
        assert caption_ranks(images, texts, owner).tolist() == expected[1]
