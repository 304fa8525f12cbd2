"""Captions that a model does not read to their end, counted and said."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptft.data.sample import SampleSet
from ptft.errors import SampleError
from ptft.preprocess import TextTokenizer

__all__ = ["Cut", "count_cut", "cut_notes"]

_LOOKED = 1024  # samples of a training set
_SHOWN = 80  # characters of a caption


class Cut(NamedTuple):
    """How many texts were not read to their end.

    Attributes:
        early: end at a special token that they spell out, such as ``<end_of_text>``; the first one.
        long: have more tokens than the model reads; the first one.
    """

    early: tuple[int, str]
    long: tuple[int, str]


def count_cut(texts: Sequence[str], tokenizer: TextTokenizer, *, stops: bool) -> Cut:
    """Count the texts that a tokenizer does not read to their end.

    Args:
        stops: the text tower reads nothing behind the first end mark (``ModelSpec.text_stops``).
    """
    early: list[str] = []
    long: list[str] = []
    for start in range(0, len(texts), _LOOKED):
        part = list(texts[start : start + _LOOKED])
        tokens = tokenizer(part)
        if stops:
            early += [part[int(i)] for i in np.flatnonzero(tokenizer.ends_early(tokens))]
        long += [part[int(i)] for i in np.flatnonzero(tokenizer.too_long(part, tokens))]
    return Cut((len(early), early[0] if early else ""), (len(long), long[0] if long else ""))


def cut_notes(samples: SampleSet, tokenizer: TextTokenizer, *, stops: bool) -> list[str]:
    """What of a training set's captions will be cut short, judged by samples spread evenly."""
    if samples.in_order:
        return []
    texts: list[str] = []
    for index in np.linspace(0, len(samples) - 1, min(_LOOKED, len(samples))).astype(int):
        try:
            texts += samples.captions(int(index))
        except SampleError:
            continue  # counted and named as it is read
    early, long = count_cut(texts, tokenizer, stops=stops)
    notes = []
    if early[0]:
        notes.append(
            f"{early[0]:,} of {len(texts):,} captions looked at end early, at a special token that "
            f"they spell out: {early[1][:_SHOWN]!r}"
        )
    if long[0]:
        notes.append(
            f"{long[0]:,} of {len(texts):,} captions looked at are cut after "
            f"{tokenizer.context_length} tokens: {long[1][:_SHOWN]!r}"
        )
    return notes
