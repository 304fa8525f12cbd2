"""Figures of a probe set are those of ``ptft evaluate``, ties and NaN included."""

import numpy as np
import pytest
import torch

from ptft.evaluate.class_ranks import rank_classes
from ptft.evaluate.figures import accuracy_figures
from ptft.evaluate.figures import recall_figures as by_torch
from ptft.evaluate.ranks import rank_retrieval
from ptft.gate.figures import agreement, probe_accuracy, probe_recall


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("case", ["plain", "ties", "collapsed", "nan"])
def test_recall_is_that_of_evaluate(case: str) -> None:
    rng = np.random.default_rng(1)
    owner_m = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11], np.int64)
    images_nd = unit(rng.normal(size=(12, 8)))
    texts_md = unit(images_nd[owner_m] + 0.4 * rng.normal(size=(15, 8)))
    if case == "ties":
        images_nd[5:8], texts_md[8:11] = images_nd[5], texts_md[8]
    elif case == "collapsed":
        images_nd[:], texts_md[:] = images_nd[0], images_nd[0]
    elif case == "nan":
        images_nd[3], texts_md[9] = np.nan, np.nan
    ranks = rank_retrieval(*map(torch.from_numpy, (images_nd, texts_md, owner_m)))
    expected = by_torch(ranks, ks=[1, 5, 10])
    found = probe_recall(images_nd, texts_md, owner_m)
    assert found == {name: pytest.approx(expected[name]) for name in found}
    assert len(found) == 6
    if case == "collapsed":
        assert found["i2t_recall@1"] == 0


def test_accuracy_is_that_of_evaluate() -> None:
    logits_nc = torch.from_numpy(np.random.default_rng(2).normal(size=(40, 3)))
    labels_n = torch.tensor([0] * 25 + [1] * 10 + [2] * 5)
    names = ["cat", "dog", "owl"]
    expected = accuracy_figures(rank_classes(logits_nc, labels_n))
    found = probe_accuracy(
        [names[at] for at in logits_nc.argmax(dim=1)], [names[at] for at in labels_n]
    )
    assert found == {name: pytest.approx(expected[name]) for name in ("top1", "mean_per_class")}
    assert 0 < found["top1"] < 1


def test_agreement() -> None:
    assert agreement(["a", "b", "c", "d"], ["a", "b", "d", "c"]) == 0.5
