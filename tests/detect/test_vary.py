"""Boxes go where their pixels go: crops, mirrors, mosaics, letterboxes, and the way back."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ptft.data.boxes.box import Boxes
from ptft.data.boxes.vary import Marked, fit_marked, mosaic, vary_marked
from ptft.data.open import open_split
from ptft.errors import ModelError
from ptft.preprocess import ImagePreprocess
from ptft.preprocess.frame import frame_of
from ptft.recipe import AugmentSection
from ptft.recipe.data import ScenesData

PREPROCESS = ImagePreprocess(size=(96, 96), resize_mode="squash", interpolation="bilinear")


def marked(corners: list[tuple[float, ...]], size: tuple[int, int] = (160, 120)) -> Marked:
    """Black, each box filled in a colour of its own (a channel)."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for channel, (left, top, right, bottom) in enumerate(corners):
        pixels[int(top) : int(bottom), int(left) : int(right), channel] = 255
    return Marked(pixels, Boxes.of(np.array(corners, np.float32), list(range(len(corners)))))


def seen(pixels: NDArray[np.uint8], channel: int) -> NDArray[np.float64] | None:
    """Where a colour is, as shares: left, top, right, bottom."""
    bright = pixels[..., channel] > 127
    if not bright.any():
        return None
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    height, width = bright.shape
    return np.array(
        [columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height]
    )


def edges(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([shares[:2] - shares[2:] / 2, shares[:2] + shares[2:] / 2])


SECTIONS = [
    AugmentSection(crop_scale=(1.0, 1.0)),
    AugmentSection(crop_scale=(0.3, 0.9), crop_ratio=(0.5, 2.0)),
    AugmentSection(crop_scale=(0.3, 0.9), flip=True),
]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("mode", ["squash", "longest"])
def test_boxes_are_where_their_pixels_are(section: AugmentSection, mode: str) -> None:
    preprocess = replace(PREPROCESS, resize_mode=mode)
    one = marked([(20, 30, 70, 90), (90, 10, 150, 60)])
    found = 0
    for seed in range(20):
        varied = vary_marked(one, preprocess, np.random.default_rng(seed), section)
        assert varied.pixels.shape == (96, 96, 3)
        for row, label in enumerate(varied.boxes.labels.tolist()):
            if varied.boxes.crowd[row]:
                continue
            where = seen(varied.pixels, label)
            assert where is not None
            assert np.abs(where - edges(varied.boxes.corners[row])).max() < 1.6 / 96
            found += 1
    assert found >= 20


def test_a_crop_keeps_a_box_and_what_is_cut_to_a_sliver_is_a_region() -> None:
    one = marked([(70, 50, 90, 70)])
    section = AugmentSection(crop_scale=(0.05, 0.1))
    for seed in range(20):
        assert len(vary_marked(one, PREPROCESS, np.random.default_rng(seed), section).boxes) > 0
    wide = marked([(0, 0, 160, 20), (0, 60, 160, 120)])
    crowds = [
        vary_marked(wide, PREPROCESS, np.random.default_rng(seed), section).boxes.crowd
        for seed in range(20)
    ]
    assert any(crowd.any() for crowd in crowds)  # neither right nor wrong


def test_a_mosaic_has_every_box_of_its_four() -> None:
    parts = [marked([tuple(np.array([20, 30, 70, 90]) + n)]) for n in range(4)]
    for seed in range(5):
        whole = mosaic(parts, np.random.default_rng(seed), fill=0)
        assert whole.size == (160, 120)
        assert len(whole.boxes) == 4
        covered = np.zeros(whole.pixels.shape[:2], bool)
        for left, top, right, bottom in whole.boxes.corners.round().astype(int):
            covered[top:bottom, left:right] = True
        bright = whole.pixels[..., 0] > 127
        assert (bright & ~covered).sum() < 0.03 * bright.sum()
        assert (bright & covered).sum() > 0.9 * covered.sum()


@pytest.mark.parametrize("mode", ["squash", "longest"])
@pytest.mark.parametrize("size", [(160, 120), (33, 97), (640, 480), (5, 200)])
def test_a_frame_leads_back(mode: str, size: tuple[int, int]) -> None:
    frame = frame_of(size, (96, 96), mode)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.5, (8, 2)) * size
    corners = np.concatenate([low, low + rng.uniform(0.1, 0.5, (8, 2)) * size], 1)
    shares = frame.to_shares(corners.astype(np.float32))
    assert np.abs(frame.to_pixels(shares) - corners).max() < 1e-2


def test_a_letterbox_is_that_of_evaluation() -> None:
    from PIL import Image

    preprocess = replace(PREPROCESS, resize_mode="longest", fill_color=114)
    one = marked([(20, 30, 70, 90)], size=(160, 100))
    own = fit_marked(one, preprocess).pixels.astype(int)
    theirs = preprocess.pixels(Image.fromarray(one.pixels)).astype(int)
    assert np.abs(own - theirs).mean() < 1.0
    assert (own[:17] == 114).all() and (theirs[:17] == 114).all()


def test_a_crop_to_the_middle_is_refused() -> None:
    with pytest.raises(ModelError, match="allowed: squash, longest"):
        frame_of((10, 20), (96, 96), "shortest")


def test_scenes_know_their_boxes() -> None:
    """On white paper what is drawn lies in the boxes, and reaches their edges."""
    section = ScenesData(style="line", size=96, train=40)
    samples = open_split(section, "train")
    assert samples.box_classes is not None and len(samples.box_classes) == 51
    for index in range(12):
        sample = samples[index]
        pixels, boxes = np.asarray(sample.image).astype(int), sample.boxes
        assert boxes is not None and len(boxes) == 2
        names = [samples.box_classes[label] for label in boxes.labels]
        assert all(name in sample.captions[0] for name in names)
        ink = np.abs(pixels - 253).max(axis=2)
        covered = np.zeros(ink.shape, bool)
        for left, top, right, bottom in boxes.corners.astype(int):
            covered[top:bottom, left:right] = True
            inside = ink[top:bottom, left:right] > 60
            assert inside[:3].any() and inside[-3:].any()
            assert inside[:, :3].any() and inside[:, -3:].any()
        assert ink[~covered].max() < 150  # what is left is half a pixel of an edge


def test_held_out_combinations_are_classes_of_their_own() -> None:
    section = ScenesData(train=10, val=10, test=10)
    train, val = open_split(section, "train"), open_split(section, "val")
    assert train.box_classes is not None and val.box_classes is not None
    assert not set(train.box_classes) & set(val.box_classes)
