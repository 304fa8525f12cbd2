"""Small detectors, built on the spot."""

from dataclasses import replace

import torch

from ptft.model import DualEncoder, build_model
from ptft.model.detecting import prepare_detector
from ptft.onnx.counting import Counting
from ptft.recipe import ArchModel, ClipObjective, DetectObjective
from tests.support.tiny import register

__all__ = ["COUNTING", "counting_detector", "lively_detector", "tiny_detector"]

COUNTING = Counting((0.1, 0.058), 0.05)
"""Thresholds and an NMS that leave out some of what the lively detector finds in noise."""


def tiny_detector(
    *, joint: int = 32, classes: tuple[str, ...] = ("red circle", "blue square")
) -> DualEncoder:
    """A vision transformer of 64 pixels in places of 16, with a head for boxes."""
    name = register(
        f"tiny-detector-{joint}",
        {
            "embed_dim": joint,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": 64,
                "layers": 2,
                "width": 64,
                "head_width": 32,
                "patch_size": 16,
            },
            "text_cfg": {
                "context_length": 16,
                "vocab_size": 49408,
                "width": 32,
                "heads": 2,
                "layers": 2,
            },
        },
    )
    torch.manual_seed(0)
    model = build_model(ArchModel(name=name), None, ClipObjective(), seed=0)
    prepare_detector(model, DetectObjective(templates=["a {}"]), classes, seed=0)
    return model


def lively_detector() -> DualEncoder:
    """The same with a head that is not at its start, where zeros would hide a mistake."""
    model = tiny_detector().eval()
    assert model.detector is not None
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.detector.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def counting_detector() -> DualEncoder:
    """The lively one, as training leaves it where it chooses by what things are counted."""
    model = lively_detector()
    assert model.detector is not None
    model.detector.spec = replace(model.detector.spec, counting=COUNTING)
    model.set_detector(model.detector)
    return model
