"""A few samples of a split as the model will see them: pixels, captions, class."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ptft.data.sample import Sample, SampleSet
from ptft.data.sources.class_captions import ClassCaptions
from ptft.errors import SampleError
from ptft.look.model_view import ModelView

__all__ = ["SampleView", "SplitSamples", "read_samples"]

_FIRST = 24  # samples of a split
_CLASSES = 24  # that have a picture each
_SIDE = 160  # pixels that a thumbnail's longer side has at most


@dataclass(frozen=True)
class SampleView:
    """A sample as the page shows it.

    Attributes:
        name: of the sample.
        label: name of its class, or None.
        captions: as the model reads them.
        image: a ``data:`` address of the picture as the model takes it; None without one.
        size: width and height of the picture before that; None without one.
        error: why it cannot be read; "" where it can.
    """

    name: str
    label: str | None = None
    captions: tuple[str, ...] = ()
    image: str | None = None
    size: tuple[int, int] | None = None
    error: str = ""


@dataclass(frozen=True)
class SplitSamples:
    """The samples of a split that the page shows.

    Attributes:
        first: the first ones of the split.
        classes: one of each class, of some classes that are spread over all.
    """

    first: list[SampleView] = field(default_factory=list)
    classes: list[SampleView] = field(default_factory=list)


def read_samples(
    samples: SampleSet, view: ModelView, *, pictures: bool, learned: bool
) -> SplitSamples:
    """Read the samples of a split that the page shows.

    Args:
        pictures: samples have some.
        learned: it is learned from, so that captions are what the objective makes them.
    """
    if learned and view.templates and samples.classes:
        samples = ClassCaptions(samples, view.templates)
    first = range(min(_FIRST, len(samples)))
    return SplitSamples(
        [_show(samples, index, view, pictures) for index in first],
        [_show(samples, index, view, pictures) for index in _one_a_class(samples)],
    )


def _one_a_class(samples: SampleSet) -> Iterable[int]:
    """The first sample of each class; of many classes, of some that are spread evenly."""
    labels = samples.labels()
    if labels is None or not samples.classes:
        return []
    seen, firsts = np.unique(labels, return_index=True)
    found = firsts[seen >= 0]
    places = np.linspace(0, len(found) - 1, min(_CLASSES, len(found))).round().astype(int)
    return [int(index) for index in found[places]]


def _show(samples: SampleSet, index: int, view: ModelView, pictures: bool) -> SampleView:
    name = samples.name(index)
    try:
        if not pictures:
            captions, label = samples.describe(index)
            return SampleView(name, _class(samples, label), _texts(captions, view))
        sample = samples[index]
        size, image = _picture(sample, view)
    except SampleError as error:
        return SampleView(name, error=str(error))
    captions = _texts(sample.captions, view)
    return SampleView(name, _class(samples, sample.label), captions, image, size)


def _class(samples: SampleSet, label: int | None) -> str | None:
    if label is None or samples.classes is None:
        return None
    return ", ".join(samples.label_names(label))


def _texts(captions: Iterable[str], view: ModelView) -> tuple[str, ...]:
    return tuple(view.text(caption) for caption in captions)


def _picture(sample: Sample, view: ModelView) -> tuple[tuple[int, int], str]:
    """Width and height as read, and the address of what the model takes. Raises SampleError."""
    picture = sample.decoded(view.preprocess.reading)
    try:
        shown = Image.fromarray(view.preprocess.pixels(picture))
    except SampleError as error:
        raise SampleError(f"{sample.name}: {error}", error.fault) from None
    shown.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=88, subsampling=0)
    return picture.size, "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
