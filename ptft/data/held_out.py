"""Which samples of a training set are held out of it, and what has to stay together."""

import numpy as np

from ptft.data.fields.field_set import FieldSet
from ptft.data.groups import places_within
from ptft.data.hashing import hash_integers, permutation
from ptft.data.sample import Part, SampleSet

__all__ = ["groups_of", "hold_out"]

_HELD_OUT = 0x68656C64  # "held": keeps this draw apart from the others of the same seed


def hold_out(samples: SampleSet, share: float) -> np.ndarray:
    """Choose the samples to hold out: bool (N,), an equal share of each class that is known.

    The same for every seed, so that what one run is chosen by no other run has learned from.
    Samples of one picture, and those of one ``data.group``, are on one side: where the first of
    them is.
    """
    order = permutation(hash_integers(_HELD_OUT), len(samples))
    labels = samples.labels()
    strata = np.zeros(len(samples), np.int64) if labels is None else labels
    if labels is not None and samples.label_sets is not None:
        strata = samples.label_sets.rarest(labels)  # so that it is not all on one side
    first = _first_together(samples)
    order = order[first[order] == order]
    held = np.zeros(len(samples), bool)
    place, size = places_within(strata[order])
    held[order[place < np.rint(share * size)]] = True
    return held[first]


def groups_of(samples: SampleSet) -> list[str | None] | None:
    """The ``data.group`` of each sample, None for none; None where the set has no groups."""
    if isinstance(samples, Part):
        found = groups_of(samples.samples)
        return None if found is None else [found[index] for index in samples.indices.tolist()]
    return samples.groups() if isinstance(samples, FieldSet) else None


def _first_together(samples: SampleSet) -> np.ndarray:
    """Of each sample the number of the first that stays with it, int64 (N,)."""
    together = [keys for keys in (samples.pictures(), _numbers(samples)) if keys is not None]
    first, before = np.arange(len(samples)), None
    while before is None or not np.array_equal(first, before):  # of what belongs to what belongs
        before = first
        for keys in together:
            _, inverse = np.unique(keys, return_inverse=True)
            least = np.full(inverse.max(initial=-1) + 1, len(samples))
            np.minimum.at(least, inverse, first)
            first = least[inverse]
    return first


def _numbers(samples: SampleSet) -> np.ndarray | None:
    """Groups by number, int64 (N,); a sample without one is its own."""
    groups = groups_of(samples)
    if groups is None:
        return None
    known: dict[str, int] = {}
    return np.array(
        [row if group is None else known.setdefault(group, row) for row, group in enumerate(groups)]
    )
