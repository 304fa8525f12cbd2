"""The sketch of training embeddings: its statistic, its null band, its file."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ptft.errors import ArtifactError
from ptft.sketch import SMALLEST, Sketch, Sketches, make_confidence, make_sketch

D = 24


def draw(count: int, seed: int, *, shift: float = 0.0, spread: float = 1.0) -> NDArray[np.float32]:
    """L2-normalised rows, of a few directions more than of others, as embeddings are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).standard_normal((D, D)) * np.geomspace(1, 0.05, D)
    centre = np.random.default_rng(8).standard_normal(D) * 0.7
    rows = spread * rng.standard_normal((count, D)) @ mixing.T / 3 + centre
    rows[:, 0] += shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def sketch() -> Sketch:
    found = make_sketch(draw(512, 0), draw(512, 1))
    assert found is not None
    return found


def moved(sketch: Sketch, rows: NDArray[np.float32]) -> bool:
    bounds = sketch.bounds(len(rows))
    assert bounds is not None
    return sketch.distance(sketch.featured(rows).sum(axis=0), len(rows)) > bounds[1]


def test_the_distance_is_that_of_a_loop_over_pairs() -> None:
    train, window = draw(2 * SMALLEST, 2), draw(5, 3, shift=0.5)
    sketch = make_sketch(train, draw(2 * SMALLEST, 4))
    assert sketch is not None

    # whitened by hand: y with L y = (x - mean) P, row by row
    covariance = sketch.covariance.astype(np.float64)
    size = len(covariance)
    for i in range(size):
        covariance[i, i] += 1e-4 * np.trace(sketch.covariance.astype(np.float64)) / size
    lower = np.linalg.cholesky(covariance)

    def whitened(row: NDArray[np.float32]) -> list[float]:
        flat = (row.astype(np.float64) - sketch.mean) @ sketch.projection.astype(np.float64)
        found: list[float] = []
        for i in range(size):
            inner = sum(lower[i, j] * found[j] for j in range(i))
            found.append((flat[i] - inner) / lower[i, i])
        return found

    def angles(row: list[float]) -> list[float]:
        return [
            sum(float(sketch.frequencies[p, r]) * row[p] for p in range(size))
            for r in range(sketch.frequencies.shape[1])
        ]

    def kernel(one: list[float], other: list[float]) -> float:
        return sum(math.cos(a - b) for a, b in zip(one, other, strict=True)) / len(one)

    def mean_of(ones: list[list[float]], others: list[list[float]], *, same: bool) -> float:
        pairs = [
            kernel(one, other)
            for i, one in enumerate(ones)
            for j, other in enumerate(others)
            if not (same and i == j)
        ]
        return sum(pairs) / len(pairs)

    x, y = ([angles(whitened(row)) for row in rows] for rows in (window, train))
    by_hand = mean_of(x, x, same=True) + mean_of(y, y, same=True) - 2 * mean_of(x, y, same=False)
    found = sketch.distance(sketch.featured(window).sum(axis=0), len(window))
    assert found == pytest.approx(by_hand, abs=2e-6)
    assert by_hand > 0.01


def test_windows_without_drift_are_within_the_band(sketch: Sketch) -> None:
    """1 in 1,000 is to be beyond it; 200 windows of each size that nobody has seen."""
    for size in (SMALLEST, 100, 500):
        beyond = sum(moved(sketch, draw(size, 1000 + seed)) for seed in range(200))
        assert beyond <= 3, size
    medians = [sketch.bounds(size)[0] for size in (30, 60, 120, 240)]  # type: ignore[index]
    found = [
        sketch.distance(sketch.featured(rows).sum(axis=0), 120)
        for rows in (draw(120, 5000 + seed) for seed in range(200))
    ]
    bounds = sketch.bounds(120)
    assert bounds is not None
    assert abs(np.median(found) - medians[2]) < 0.5 * (bounds[1] - bounds[0])


def test_a_shift_and_a_change_of_shape_alone_are_seen(sketch: Sketch) -> None:
    assert all(moved(sketch, draw(240, seed, shift=0.6)) for seed in range(2000, 2008))
    assert all(moved(sketch, draw(240, seed, spread=1.6)) for seed in range(2000, 2008))
    assert all(moved(sketch, draw(240, seed, spread=0.5)) for seed in range(2000, 2008))


def test_the_same_rows_give_the_same_sketch_and_few_give_none(sketch: Sketch) -> None:
    again = make_sketch(draw(512, 0), draw(512, 1))
    assert again is not None
    for name, tensor in Sketches(image=sketch).tensors().items():
        assert tensor.tobytes() == Sketches(image=again).tensors()[name].tobytes(), name
    assert make_sketch(draw(512, 0), draw(2 * SMALLEST - 1, 1)) is None
    assert make_confidence(np.ones((512, 1)), np.ones((2 * SMALLEST - 1, 1))) is None
    assert sketch.bounds(SMALLEST - 1) is None
    assert sketch.bounds(10**6) == sketch.bounds(240)


def test_confidence_by_class_and_its_band() -> None:
    rng = np.random.default_rng(3)
    logits = 3 * rng.standard_normal((900, 4))
    rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = make_confidence(rows[:300], rows[300:600])
    assert found is not None
    for c in range(4):
        own = [row.max() for row in rows[:300] if row.argmax() == c]
        assert found.share[c] == pytest.approx(len(own) / 300)
        assert found.mean[c] == pytest.approx(sum(own) / len(own), rel=1e-5)
    bounds = found.bounds(100)
    assert bounds is not None and bounds[0] < rows[600:700].max(axis=1).mean() < bounds[1]
    assert not bounds[0] < 0.4 < bounds[1]


def test_the_file(sketch: Sketch, tmp_path: Path) -> None:
    confidence = make_confidence(np.eye(3)[[0, 1] * 100], np.eye(3)[[0, 1] * 100])
    tensors = Sketches(image=sketch, confidence=confidence).tensors()
    path = tmp_path / "sketch.safetensors"
    save_file(tensors, path)
    assert path.stat().st_size < 100_000
    found = Sketches.read(path, D, 3)
    assert found.text is None and found.image is not None and found.confidence is not None
    assert found.image.bounds(60) == sketch.bounds(60)
    rows = draw(60, 9)
    assert np.array_equal(found.image.featured(rows), sketch.featured(rows))

    nan = np.full_like(sketch.mean, np.nan)
    for name, tensor, said in (
        ("image.mean", None, "image.mean: missing"),
        ("image.mean", nan, "allowed: finite"),
        ("image.mean", sketch.mean[1:], "allowed: finite float32 of shape"),
        ("image.covariance", -np.eye(24, dtype=np.float32), "not of any samples"),
        ("image.counts", np.ones(2, np.float32), "allowed: at least 2"),
        ("image.band", np.ones((99, 3), np.float32), "at most 5 sizes"),
        ("confidence.share", np.ones(4, np.float32), "of shape (3,)"),
        ("sound.mean", sketch.mean, "sound.mean: allowed: image, text, confidence"),
    ):
        broken = {
            key: value for key, value in (tensors | {name: tensor}).items() if value is not None
        }
        save_file(broken, path)
        with pytest.raises(ArtifactError) as refused:
            Sketches.read(path, D, 3)
        assert said in str(refused.value), name
