"""Held-out samples and shots: the choices that a mask per class makes, bit for bit."""

import numpy as np
import pytest

from ptft.data import Sample
from ptft.data.groups import places_within
from ptft.data.hashing import hash_integers, permutation
from ptft.data.held_out import hold_out
from ptft.data.sample import SampleSet, draw_samples

_HELD_OUT, _SUBSET = 0x68656C64, 0x73756273  # of the draws, as runs that have begun know them


class Labelled(SampleSet):
    """Samples that are nothing but a class and the number of a picture."""

    def __init__(self, labels: np.ndarray | None, pictures: np.ndarray | None, count: int) -> None:
        self._labels, self._pictures, self._count = labels, pictures, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("a choice reads no picture")

    def name(self, index: int) -> str:
        return str(index)

    def captions(self, index: int) -> tuple[str, ...]:
        return ()

    def labels(self) -> np.ndarray | None:
        return self._labels

    def pictures(self) -> np.ndarray | None:
        return self._pictures


def drawn_set(seed: int) -> Labelled:
    """Of one to 400 samples; classes of very different sizes, samples of none, shared pictures."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 400))
    labels = np.minimum(rng.geometric(0.15, count), 30).astype(np.int64) - 2
    pictures = rng.integers(0, count, count) if seed % 2 else None
    return Labelled(None if seed % 5 == 0 else labels, pictures, count)


def masks_hold_out(samples: Labelled, share: float) -> np.ndarray:
    """A mask per class."""
    order = permutation(hash_integers(_HELD_OUT), len(samples))
    labels, pictures = samples.labels(), samples.pictures()
    groups = np.zeros(len(samples), np.int64) if labels is None else labels
    first = np.arange(len(samples))
    if pictures is not None:
        first = np.array([pictures.tolist().index(own) for own in pictures.tolist()])
    order = order[first[order] == order]
    held = np.zeros(len(samples), bool)
    for group in np.unique(groups):
        members = order[groups[order] == group]
        held[members[: round(share * len(members))]] = True
    return held[first]


def masks_draw(samples: Labelled, seed: int, shots: int, limit: int | None) -> np.ndarray:
    """A mask per class."""
    order = permutation(hash_integers(seed, _SUBSET), len(samples))
    labels = samples.labels()
    assert labels is not None
    kept, seen = [], dict.fromkeys(labels.tolist(), 0)
    for index in order.tolist():
        label = int(labels[index])
        if label >= 0 and seen[label] < shots:
            kept.append(index)
        seen[label] += 1
    return np.sort(np.array(kept, np.int64)[:limit])


@pytest.mark.parametrize("seed", range(20))
def test_what_is_held_out_is_what_a_mask_per_class_holds_out(seed: int) -> None:
    samples = drawn_set(seed)
    for share in (0.01, 0.05, 0.125, 0.25, 0.5, 0.9):  # 0.125 and 0.5 meet halves, which go to even
        assert np.array_equal(hold_out(samples, share), masks_hold_out(samples, share))


@pytest.mark.parametrize("seed", [seed for seed in range(20) if seed % 5])
def test_shots_are_what_a_mask_per_class_draws(seed: int) -> None:
    samples = drawn_set(seed)
    for shots, limit in ((1, None), (2, 5), (7, 40), (1000, None)):
        found = draw_samples(samples, seed, shots=shots, limit=limit)
        assert found.dtype == np.int64
        assert np.array_equal(found, masks_draw(samples, seed, shots, limit))


def test_places_within_groups() -> None:
    place, size = places_within(np.array([3, -1, 3, 3, 0, -1]))
    assert place.tolist() == [0, 0, 1, 2, 0, 1]
    assert size.tolist() == [3, 2, 3, 3, 1, 2]
    assert [each.tolist() for each in places_within(np.array([], np.int64))] == [[], []]
