"""The linear probe against scikit-learn's LogisticRegression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ptft.evaluate import probe as probe_module
from ptft.evaluate import ranks
from ptft.evaluate.probe import C_FALLBACK, choose_c, fit_probe, stratified_fifth


def embeddings(per_class: int = 30, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 24, generator=generator)
    labels = torch.arange(classes).repeat_interleave(per_class)
    rows = 2.0 + centres[labels] + 2.0 * torch.randn(len(labels), 24, generator=generator)
    return torch.nn.functional.normalize(rows, dim=1), labels


@pytest.mark.parametrize("c", [0.3, 10.0, 3000.0])
def test_the_minimum_is_scikit_learns(monkeypatch: pytest.MonkeyPatch, c: float) -> None:
    monkeypatch.setattr(ranks, "SCORES_AT_ONCE", 64 * 24)  # several pieces, the last one short
    x, y = embeddings()
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(x.double().numpy(), y.numpy())
    ours = fit_probe(x, y, classes=5, c=c)
    expected = theirs.predict_log_proba(x.double().numpy())
    found = ours.logits(x).double().log_softmax(1).numpy()
    assert np.abs(found - expected).max() < 2e-3 * max(1.0, np.abs(expected).max())
    scale = np.abs(theirs.coef_).max()
    assert np.abs(ours.weight_cd.numpy() - theirs.coef_).max() < 2e-3 * scale


def test_a_start_elsewhere_ends_at_the_same_minimum() -> None:
    x, y = embeddings()
    cold = fit_probe(x, y, classes=5, c=10.0)
    warm = fit_probe(x, y, classes=5, c=10.0, start=fit_probe(x[::2], y[::2], classes=5, c=1.0))
    assert (cold.logits(x) - warm.logits(x)).abs().max() < 1e-3


@pytest.mark.parametrize("c", [0.1, 10.0, 3000.0])
def test_searches_that_end_early_end_near_the_same_minimum(c: float) -> None:
    x, y = embeddings()
    whole = fit_probe(x, y, classes=5, c=c).logits(x)
    for tolerance, apart in ((1e-4, 0.1), (1e-6, 1e-3)):
        single = fit_probe(x, y, classes=5, c=c, tolerance=tolerance)
        assert single.weight_cd.dtype == torch.float64
        assert (single.logits(x) - whole).abs().max() < apart * max(1.0, float(whole.abs().max()))


def test_the_same_seed_gives_the_same_choice() -> None:
    x, y = embeddings()
    first = choose_c(x, y, classes=5, seed=3)
    assert first == choose_c(x, y, classes=5, seed=3)
    held = stratified_fifth(y.numpy(), seed=3)
    assert np.array_equal(held, stratified_fifth(y.numpy(), seed=3))
    assert not np.array_equal(held, stratified_fifth(y.numpy(), seed=4))
    # The choice is a good one: nearly as good as the best of the grid on fresh samples.
    generator = torch.Generator().manual_seed(9)
    order = torch.randperm(len(y), generator=generator)
    fit, check = order[:75], order[75:]
    chosen = choose_c(x[fit], y[fit], classes=5, seed=0)

    def accuracy(c: float) -> float:
        fitted = fit_probe(x[fit], y[fit], classes=5, c=c)
        return float((fitted.logits(x[check]).argmax(1) == y[check]).double().mean())

    assert accuracy(chosen) >= max(accuracy(c) for c in probe_module.C_GRID) - 0.08


@pytest.mark.parametrize("seed", range(4))
def test_fits_that_end_early_choose_what_whole_ones_do(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(1, 17) ** -0.7
    labels = torch.randint(0, 6, (150,), generator=generator)
    rows = torch.randn(6, 16, generator=generator)[labels]
    rows = (rows + torch.randn(150, 16, generator=generator)) * spread
    x = torch.nn.functional.normalize(rows, dim=1)
    loose = choose_c(x, labels, classes=6, seed=0)
    monkeypatch.setattr(probe_module, "EARLY", 1e-8)
    assert choose_c(x, labels, classes=6, seed=0) == loose


def test_the_held_out_fifth_is_stratified() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    held = stratified_fifth(labels, seed=0)
    assert [int(held[labels == k].sum()) for k in range(4)] == [10, 2, 1, 0]


def test_one_image_a_class_uses_the_fallback() -> None:
    x, y = embeddings(per_class=1)
    assert choose_c(x, y, classes=5, seed=0) == C_FALLBACK
    fitted = fit_probe(x, y, classes=5, c=C_FALLBACK)
    assert torch.equal(fitted.logits(x).argmax(1), y)


def test_an_easy_set_is_not_left_without_confidence() -> None:
    """Every C separates three directions; only the cross-entropy can tell them apart."""
    y = torch.arange(3).repeat(20)
    x = torch.eye(8)[y] + 0.01 * torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    c = choose_c(torch.nn.functional.normalize(x, dim=1), y, classes=3, seed=0)
    assert c >= 1e4
