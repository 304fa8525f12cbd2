"""Where a new head begins: unlikely everywhere, whatever the encoder's similarities are."""

import math

import numpy as np
import pytest
import torch

from ptft.data import open_split
from ptft.data.sample import Part, Sample, SampleSet
from ptft.errors import DataError, SampleError
from ptft.model import DualEncoder
from ptft.model.detecting import query_embeddings
from ptft.recipe import DetectObjective, ScenesData
from ptft.train.prior import put_detector
from tests.support.tiny import build, towers_section

SECTION = DetectObjective(templates=["a {}"], maps=2, width=16)


def scenes() -> SampleSet:
    return open_split(ScenesData(size=64, train=48), "train", seed=0)


def likely(model: DualEncoder, samples: SampleSet) -> float:
    """The mean probability of every name at every place of the first pictures."""
    assert model.detector is not None and samples.box_classes
    pixels = [torch.from_numpy(model.spec.preprocess(samples[n].image)) for n in range(32)]
    with torch.no_grad():
        queries = query_embeddings(model, samples.box_classes, SECTION.templates)
        return float(model.detect(torch.stack(pixels), queries).logits.sigmoid().mean())


@pytest.mark.parametrize("scale", [5.0, 60.0])
def test_a_name_is_as_unlikely_as_the_focal_loss_wants_it(scale: float) -> None:
    """At whatever scale the encoder learned its similarities, which the head goes on with."""
    model, samples = build(towers_section(image_size=64)).eval(), scenes()
    with torch.no_grad():
        model.logit_scale.fill_(math.log(scale))
    put_detector(model, samples, SECTION, seed=0)
    assert model.detector is not None
    assert likely(model, samples) == pytest.approx(0.01, abs=0.003)
    head = model.detector.class_head
    assert float(head.scale(torch.zeros(1, 16)).detach()) == pytest.approx(scale, rel=1e-5)
    with torch.no_grad():  # at the shift of a head that knows nothing of its encoder
        head.logit_shift.bias.fill_(math.log(0.01 / 0.99) / scale)
    assert likely(model, samples) != pytest.approx(0.01, abs=0.003)


def test_a_head_that_is_there_stays_as_it_is() -> None:
    model, samples = build(towers_section(image_size=64)).eval(), scenes()
    put_detector(model, samples, SECTION, seed=0)
    assert model.detector is not None
    with torch.no_grad():
        model.detector.class_head.logit_shift.bias.fill_(-0.3)
    put_detector(model, samples, SECTION, seed=0)
    assert model.detector.class_head.logit_shift.bias.tolist() == [pytest.approx(-0.3)]


def test_pictures_that_cannot_be_read_are_an_error_that_counts_them() -> None:
    class Broken(Part):
        def __getitem__(self, index: int) -> Sample:
            raise SampleError(self.name(index), "broken")

    broken = Broken(scenes(), np.arange(20))
    with pytest.raises(DataError, match=r"data\.train: none of 16 pictures could be read"):
        put_detector(build(towers_section(image_size=64)), broken, SECTION, seed=0)
