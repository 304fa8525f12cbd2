"""A sketch of a model's training embeddings, and how far others have moved from it.

Embeddings of training are projected at random to few dimensions and whitened there. What is kept is
their mean in random Fourier features, whose distance from the mean of others is the maximum mean
discrepancy under a Gaussian kernel (Gretton et al., "A kernel two-sample test", JMLR 2012; Rahimi
and Recht, "Random features for large-scale kernel machines", 2007): 0 where both come from one
distribution, and above it wherever they differ, in mean or in shape. How far held-out samples are
from training by chance, in windows of several sizes, is measured where the sketch is made, and is
the null band. Of other embeddings a sum of features is all that is needed: no sample is kept.

Letters in shapes: N samples, D width of an embedding, P of its projection, R frequencies, C
classes, B sizes of window.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptft.errors import ArtifactError
from ptft.files.arrays import read_arrays

__all__ = ["SMALLEST", "Confidence", "Sketch", "Sketches", "make_confidence", "make_sketch"]

SMALLEST = 30
"""Samples of the smallest window that is judged; a sketch needs twice as many held out."""

_P, _R = 32, 128
_SIZES = (SMALLEST, 60, 120, 240, 480)
_WINDOWS = 2000  # that are drawn of each size
_CHANCE = 0.001  # of a window without drift to be beyond its band
_SEED = 20_261_130
_RIDGE = 1e-4  # of the mean variance: directions that have none would be divided by nothing
_MAX_WIDTH, _MAX_CLASSES = 1 << 16, 1 << 20

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sketch:
    """Of one kind of embedding, L2-normalised.

    Attributes:
        mean: (D,), of training.
        projection: (D, P), the same for all models of a width.
        covariance: (P, P), of what is projected.
        frequencies: (P, R), of the features.
        features: (2R,), their mean over training.
        band: (B, 3): size of a window, median and bound of the distances of such windows of
            held-out samples.
        counts: (2,), samples of training and held-out ones.
    """

    mean: Floats
    projection: Floats
    covariance: Floats
    frequencies: Floats
    features: Floats
    band: Floats
    counts: Floats

    def featured(self, rows_nd: NDArray) -> NDArray[np.float64]:
        """Embeddings (N, D) to features (N, 2R), each row of length 1."""
        angles_nr = (rows_nd.astype(np.float64) - self.mean) @ self._directions
        scale = self.frequencies.shape[1] ** -0.5
        return np.concatenate([np.cos(angles_nr), np.sin(angles_nr)], axis=1) * scale

    def distance(self, total: NDArray[np.float64], count: int) -> float:
        """Squared maximum mean discrepancy from training, unbiased, so below 0 now and then.

        Args:
            total: (2R,), the sum of the features of ``count`` embeddings, at least two.
        """
        return float(_distances(total[None] / count, count, self.features, self.counts[0])[0])

    def bounds(self, count: int) -> tuple[float, float] | None:
        """Median and bound of the distance of ``count`` samples without drift; None for too few.

        Of the nearest smaller window that was measured, whose band is wider.
        """
        fits = self.band[self.band[:, 0] <= count]
        return (float(fits[-1, 1]), float(fits[-1, 2])) if len(fits) else None

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        """(D, R): projection, whitening and frequencies in one."""
        return self.projection @ _whitening(self.covariance.astype(np.float64)) @ self.frequencies


@dataclass(frozen=True)
class Confidence:
    """How sure a classifier was.

    Attributes:
        share: (C,), of training samples that were given each class.
        mean: (C,), the probability that they were given it with, on average; 0 where none was.
        band: (B, 3): size of a window, and the bounds of the mean probability of the class that is
            given, over windows of held-out samples.
    """

    share: Floats
    mean: Floats
    band: Floats

    def bounds(self, count: int) -> tuple[float, float] | None:
        """Between which the mean confidence of ``count`` samples lies without drift; None for too
        few."""
        fits = self.band[self.band[:, 0] <= count]
        return (float(fits[-1, 1]), float(fits[-1, 2])) if len(fits) else None


@dataclass(frozen=True)
class Sketches:
    """What a model folder holds: of each kind of embedding, or None where there was too little."""

    image: Sketch | None = None
    text: Sketch | None = None
    confidence: Confidence | None = None

    def tensors(self) -> dict[str, Floats]:
        """By their names in the file: ``image.mean``, and so on."""
        parts = {name: getattr(self, name) for name in _PARTS}
        return {
            f"{name}.{one.name}": getattr(part, one.name)
            for name, part in parts.items()
            if part is not None
            for one in fields(part)
        }

    @classmethod
    def read(cls, path: Path, embed_dim: int, classes: int) -> "Sketches":
        """Read a file.

        Args:
            embed_dim: width of the model's embeddings.
            classes: of its head, 0 without one.

        Raises:
            ArtifactError: it is damaged, holds other tensors, or none of a shape that fits.
        """
        tensors = read_arrays(path)
        parts: dict[str, Any] = {}
        for name, kind in _PARTS.items():
            keys = {f"{name}.{one.name}": one.name for one in fields(kind)}
            if found := {own: tensors.pop(key) for key, own in keys.items() if key in tensors}:
                if missing := [key for key, own in keys.items() if own not in found]:
                    raise ArtifactError(f"{path}: {missing[0]}: missing")
                _check(path, name, found, embed_dim, classes)
                parts[name] = kind(**found)
        if tensors:
            raise ArtifactError(f"{path}: {next(iter(tensors)):.80}: allowed: {', '.join(_PARTS)}")
        return cls(**parts)


_PARTS: Mapping[str, type] = {"image": Sketch, "text": Sketch, "confidence": Confidence}


def make_sketch(train_nd: NDArray, held_nd: NDArray) -> Sketch | None:
    """Sketch L2-normalised embeddings; the same rows give the same bytes.

    Args:
        train_nd: of training.
        held_nd: of samples that training has not seen.

    Returns:
        None where fewer than twice ``SMALLEST`` are held out, or fewer were trained on.
    """
    if min(len(train_nd), len(held_nd)) < 2 * SMALLEST:
        return None
    rng = np.random.default_rng(_SEED)
    width = train_nd.shape[1]
    projection = rng.standard_normal((width, min(_P, width))) / np.sqrt(width)
    frequencies = rng.standard_normal((projection.shape[1], _R))
    # whitened rows are sqrt(2 P) apart on average: the kernel's width, by the usual rule
    frequencies /= np.sqrt(2 * projection.shape[1])
    mean = train_nd.astype(np.float64).mean(axis=0)
    flat = (train_nd - mean) @ projection
    plain = Sketch(
        mean=mean.astype(np.float32),
        projection=projection.astype(np.float32),
        covariance=(flat.T @ flat / (len(flat) - 1)).astype(np.float32),
        frequencies=frequencies.astype(np.float32),
        features=np.zeros(2 * _R, np.float32),
        band=np.zeros((0, 3), np.float32),
        counts=np.array([len(train_nd), len(held_nd)], np.float32),
    )
    features = plain.featured(train_nd).mean(axis=0).astype(np.float32)
    held = plain.featured(held_nd)
    band = []
    for size, chosen_wn in _draw_windows(len(held_nd), rng):
        found = _distances(chosen_wn @ held / size, size, features, len(train_nd))
        band.append((size, np.median(found), np.quantile(found, 1 - _CHANCE)))
    values = {one.name: getattr(plain, one.name) for one in fields(plain)}
    return Sketch(**{**values, "features": features, "band": np.array(band, np.float32)})


def make_confidence(train_nc: NDArray, held_nc: NDArray) -> Confidence | None:
    """Sketch probabilities of classes, see :func:`make_sketch`."""
    if min(len(train_nc), len(held_nc)) < 2 * SMALLEST:
        return None
    given, top = train_nc.argmax(axis=1), train_nc.max(axis=1).astype(np.float64)
    counts = np.bincount(given, minlength=train_nc.shape[1])
    sums = np.bincount(given, weights=top, minlength=train_nc.shape[1])
    held = held_nc.max(axis=1).astype(np.float64)
    band = []
    for size, chosen_wn in _draw_windows(len(held), np.random.default_rng(_SEED)):
        low, high = np.quantile(chosen_wn @ held / size, (_CHANCE / 2, 1 - _CHANCE / 2))
        band.append((size, low, high))
    return Confidence(
        share=(counts / counts.sum()).astype(np.float32),
        mean=(sums / np.maximum(counts, 1)).astype(np.float32),
        band=np.array(band, np.float32),
    )


def _draw_windows(count: int, rng: np.random.Generator) -> list[tuple[int, NDArray[np.float64]]]:
    """Of each size that is at most half of the samples: which of them are in each window, as 0 and
    1, (windows, ``count``). What is left out of a window is as large, so that its distance shows
    how much the samples themselves are a draw."""
    found = []
    for size in _SIZES:
        if size <= count // 2:
            ranks = rng.random((_WINDOWS, count)).argsort(axis=1)
            found.append((size, (ranks < size).astype(np.float64)))
    return found


def _distances(
    means_wf: NDArray[np.float64], count: int, features: Floats, trained: float
) -> NDArray[np.float64]:
    """Of the means of W windows of ``count`` samples from the mean of ``trained`` ones: what a
    sample has in common with itself is taken off both (each row of features has length 1)."""
    own = (count * (means_wf**2).sum(axis=1) - 1) / (count - 1)
    target = features.astype(np.float64)
    its = (trained * target @ target - 1) / (trained - 1)
    return own + its - 2 * means_wf @ target


def _whitening(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, P): what makes rows of this covariance uncorrelated, of variance 1."""
    size = len(covariance)
    ridge = _RIDGE * np.trace(covariance) / size + np.finfo(np.float32).tiny
    return np.linalg.inv(np.linalg.cholesky(covariance + ridge * np.eye(size))).T


def _check(
    path: Path, part: str, found: Mapping[str, NDArray], embed_dim: int, classes: int
) -> None:
    """Shapes that fit each other and the model, and finite numbers."""
    wide = min(_P, embed_dim)
    wanted: dict[str, tuple[int | None, ...]] = {
        "projection": (embed_dim, wide),
        "covariance": (wide, wide),
        "frequencies": (wide, _R),
        "features": (2 * _R,),
        "counts": (2,),
        "share": (classes,),
        "mean": (classes if part == "confidence" else embed_dim,),
        "band": (None, 3),
    }
    for name, tensor in found.items():
        shape = wanted[name]
        fits = tensor.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, tensor.shape, strict=True)
        )
        if tensor.dtype != np.float32 or not fits or not np.isfinite(tensor).all():
            raise ArtifactError(
                f"{path}: {part}.{name}: {tensor.dtype}{tensor.shape}; "
                f"allowed: finite float32 of shape {shape}"
            )
    if len(found["band"]) > len(_SIZES):
        raise ArtifactError(f"{path}: {part}.band: allowed: at most {len(_SIZES)} sizes")
    if "counts" in found and found["counts"].min() < 2:
        raise ArtifactError(f"{path}: {part}.counts: {found['counts']}; allowed: at least 2")
    if "covariance" in found:
        try:
            _whitening(found["covariance"].astype(np.float64))
        except np.linalg.LinAlgError:
            raise ArtifactError(f"{path}: {part}.covariance: not of any samples") from None
