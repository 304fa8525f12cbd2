"""Averages of weights."""

from dataclasses import replace

import pytest
import torch

from ptft.errors import ModelError
from ptft.model.average import interpolate, soup
from ptft.onnx.counting import Counting
from ptft.recipe import SiglipObjective
from tests.support.detectors import lively_detector, tiny_detector
from tests.support.tiny import arch_section, build, pictures, tokens, towers_section


def test_the_ends_of_the_line_are_the_two_models() -> None:
    start, trained = build(towers_section(), seed=0), build(towers_section(), seed=1)
    images, words = pictures(start), tokens(start)
    for alpha, end in ((0.0, start), (1.0, trained)):
        mixed = interpolate(start, trained, alpha).eval()
        for ours, theirs in zip(mixed(images, words), end(images, words), strict=True):
            assert torch.equal(ours, theirs)


def test_floats_are_mixed_and_counters_are_not() -> None:
    start, trained = build(towers_section(), seed=0), build(towers_section(), seed=1)
    counters = [n for n, v in trained.state_dict().items() if not v.is_floating_point()]
    assert counters, "this tower has batch norms"
    trained.get_buffer(counters[0]).fill_(7)
    mixed = interpolate(start, trained, 0.25)
    assert int(mixed.get_buffer(counters[0])) == 7
    name = next(n for n, v in start.state_dict().items() if v.is_floating_point() and v.ndim > 1)
    wanted = 0.75 * start.state_dict()[name].double() + 0.25 * trained.state_dict()[name].double()
    assert torch.equal(mixed.state_dict()[name], wanted.float())


def test_a_head_that_the_start_lacks_is_the_trained_ones() -> None:
    start, trained = build(arch_section(), seed=0), build(arch_section(), seed=1)
    trained.set_head(torch.randn(3, trained.spec.embed_dim), ["a", "b", "c"], ["{}"])
    mixed = interpolate(start, trained, 0.5)
    assert mixed.head is not None and trained.head is not None
    assert torch.equal(mixed.head.weight, trained.head.weight)


def test_a_soup_is_the_mean() -> None:
    models = [build(arch_section(), seed=seed) for seed in range(3)]
    name = "text.token_embedding.weight"
    wanted = sum(model.state_dict()[name].double() for model in models) / 3
    torch.testing.assert_close(soup(models).state_dict()[name].double(), wanted, atol=1e-7, rtol=0)


def test_other_architectures_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="cannot be averaged"):
        interpolate(build(arch_section()), build(towers_section()), 0.5)


def test_a_tensor_that_only_one_model_of_a_soup_has_is_named() -> None:
    plain, biased = build(arch_section(), seed=0), build(arch_section(), SiglipObjective(), seed=1)
    for models in ([plain, biased], [biased, plain]):
        with pytest.raises(ModelError, match="logit_bias: not the same in all"):
            soup(models)


def test_what_a_detector_counts_by_is_not_that_of_a_mix() -> None:
    """It was chosen for the weights of one."""
    start, trained = tiny_detector(), lively_detector()
    assert trained.detector is not None
    counting = Counting((0.2, 0.3), None)
    trained.detector.spec = replace(trained.detector.spec, counting=counting)
    trained.set_detector(trained.detector)
    for mixed in (interpolate(start, trained, 0.5), soup([trained, start])):
        assert mixed.detector is not None and mixed.detector.spec.counting is None
        assert mixed.spec.detector == start.spec.detector
    assert trained.detector.spec.counting == counting


def test_a_mix_tells_classes_by_no_thresholds_of_one() -> None:
    start, trained = (build(arch_section(), seed=seed) for seed in (0, 1))
    for model in (start, trained):
        rows = torch.eye(2, model.spec.embed_dim)
        model.set_head(rows, ["cat", "dog"], (), reads="image", thresholds=[0.1, 0.9])
    for mixed in (interpolate(start, trained, 0.5), soup([trained, start])):
        assert mixed.spec.thresholds == (0.5, 0.5)
    assert trained.spec.thresholds == (0.1, 0.9)
