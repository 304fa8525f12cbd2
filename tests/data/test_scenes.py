"""The embedded data: deterministic, compositional, fairly split."""

import itertools
import re

import numpy as np
import pytest

from ptft.data.open import open_split
from ptft.data.sample import contact_sheet
from ptft.data.sources.drawing import COLOURS, PATTERNS, SIZES, Scene, Thing, draw_scene
from ptft.data.sources.scenes import Scenes, held_out_pairs
from ptft.data.sources.shapes import SHAPES
from ptft.errors import DataError
from ptft.recipe.data import ScenesData

THING = rf"a ({'|'.join(SIZES)}) ({'|'.join(PATTERNS)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"


def _pairs(scene: Scene) -> list[tuple[str, str]]:
    return [(thing.colour, thing.shape) for thing in (scene.first, scene.second)]


def test_a_scene_is_the_same_each_time_and_differs_from_the_others() -> None:
    section = ScenesData(train=40)
    once, again = Scenes(section, "train"), Scenes(section, "train")
    pictures = [np.asarray(once[i].image) for i in range(40)]
    for index in reversed(range(40)):  # in another order
        sample = again[index]
        assert np.array_equal(np.asarray(sample.image), pictures[index])
        assert sample.captions == once.captions(index)
    for one, other in itertools.combinations(pictures, 2):
        assert not np.array_equal(one, other)


def test_captions_are_pinned() -> None:
    """What a seed means may not change between versions: figures would no longer compare."""
    train, test = Scenes(ScenesData(), "train"), Scenes(ScenesData(), "test")
    assert train.captions(0) == (
        "a large striped pink heart above a large plain yellow cross",
        "a large plain yellow cross below a large striped pink heart",
        "a large striped pink heart over a large plain yellow cross",
        "a large striped pink heart and, beneath it, a large plain yellow cross",
    )
    assert train.captions(1)[1] == "a small dotted red cross right of a large striped green heart"
    assert test.captions(0) == ("a small striped blue star left of a small dotted pink circle",)


def test_training_never_shows_a_held_out_pair_and_the_others_show_nothing_else() -> None:
    section = ScenesData(train=3000)
    held = {
        (COLOURS[pair % len(COLOURS)], SHAPES[pair // len(COLOURS)])
        for pair in held_out_pairs(section.held_out, section.seed).tolist()
    }
    assert len(held) == round(0.2 * 64)
    train = Scenes(section, "train")
    seen = {pair for index in range(len(train)) for pair in _pairs(train.scene(index))}
    assert not seen & held
    assert len(seen) == 64 - len(held)
    for split in ("val", "test"):
        scenes = Scenes(section, split)
        asked = {pair for index in range(len(scenes)) for pair in _pairs(scenes.scene(index))}
        assert asked == held


def test_no_shape_or_colour_is_held_out_much_more_than_another() -> None:
    for share, seed in itertools.product((0.01, 0.2, 0.5, 0.99), range(5)):
        held = held_out_pairs(share, seed)
        assert len(set(held.tolist())) == len(held) == min(max(round(share * 64), 2), 56)
        for axis in (held % 8, held // 8):
            counts = np.bincount(axis, minlength=8)
            assert counts.max() - counts.min() <= 1
            assert counts.max() < 8


def test_captions_of_val_and_test_are_all_different_and_name_every_attribute() -> None:
    section = ScenesData(val=500, test=700)
    scenes = [
        scenes.scene(index)
        for scenes in (Scenes(section, "val"), Scenes(section, "test"))
        for index in range(len(scenes))
    ]
    assert len(set(scenes)) == 1200
    pattern = re.compile(f"{THING} (above|left of) {THING}")
    captions = set()
    for split in ("val", "test"):
        samples = Scenes(section, split)
        for index in range(len(samples)):
            (caption,) = samples.captions(index)
            assert pattern.fullmatch(caption)
            captions.add(caption)
    assert len(captions) == 1200


def test_a_longer_split_begins_with_the_shorter_one() -> None:
    for split in ("train", "val", "test"):
        short = Scenes(ScenesData(**{split: 20}), split)
        long = Scenes(ScenesData(**{split: 90, "val" if split != "val" else "test": 400}), split)
        assert [short.scene(i) for i in range(20)] == [long.scene(i) for i in range(20)]


def test_every_paraphrase_says_the_same() -> None:
    train = Scenes(ScenesData(train=300), "train")
    for index in range(300):
        scene = train.scene(index)
        one, other = f"a {scene.first}", f"a {scene.second}"
        for caption in train.captions(index):
            swapped = " below " in caption or " right of " in caption
            assert caption.startswith(other if swapped else one)
            assert caption.endswith(one if swapped else other)
            assert ("to its right" in caption or "left" in caption or "right of" in caption) == (
                not scene.vertical
            )


def test_things_are_where_the_caption_says() -> None:
    """Saturated pixels of a red and a blue thing lie on their own sides, in both styles."""
    for style, vertical, key in itertools.product(("shaded", "line"), (False, True), range(20)):
        scene = Scene(
            Thing("large", "plain", "red", "square"),
            Thing("small", "plain", "blue", "circle"),
            vertical,
        )
        picture = draw_scene(scene, style, 64, key).astype(int)
        red, blue = (picture[..., a] - picture[..., b] for a, b in ((0, 2), (2, 0)))
        rows, columns = np.mgrid[:64, :64]
        place = rows if vertical else columns
        first = (place * (red > 80)).sum() / (red > 80).sum()
        second = (place * (blue > 80)).sum() / (blue > 80).sum()
        assert first + 10 < second


def test_styles_show_the_same_scenes_and_look_nothing_alike() -> None:
    shaded, line = (Scenes(ScenesData(style=style), "test") for style in ("shaded", "line"))
    for index in range(20):
        assert shaded.captions(index) == line.captions(index)
        paper = np.asarray(line[index].image)
        assert (paper.min(axis=2) > 240).mean() > 0.6  # white but for thin strokes
        assert (np.asarray(shaded[index].image).min(axis=2) > 240).mean() < 0.3


def test_all_sizes_draw_and_stay_inside() -> None:
    for side in (32, 64, 97, 300, 512):
        for style in ("shaded", "line"):
            sample = Scenes(ScenesData(style=style, size=side), "val")[1]
            assert sample.image.size == (side, side)
    for shape, size, key in itertools.product(SHAPES, SIZES, range(8)):
        scene = Scene(
            Thing(size, "plain", "blue", shape), Thing(size, "plain", "red", shape), False
        )
        picture = draw_scene(scene, "line", 64, key)
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert edge.min() > 150, (shape, size, key)


def test_classes_are_the_shapes_of_the_first_thing() -> None:
    scenes = open_split(ScenesData(train=200), "train")
    labels = scenes.labels()
    assert scenes.classes == list(SHAPES)
    assert labels is not None and set(labels.tolist()) == set(range(8))
    for index in range(0, 200, 20):
        sample = scenes[index]
        assert sample.label == labels[index]
        assert (
            sample.captions[0]
            .split(" above ")[0]
            .split(" left of ")[0]
            .endswith(scenes.classes[sample.label])
        )


def test_more_held_out_scenes_than_there_are_is_an_error() -> None:
    section = ScenesData(held_out=0.03, val=100, test=100)
    with pytest.raises(DataError, match=r"data.val \+ data.test: 200 scenes.*make only 144"):
        open_split(section, "val")


def test_contact_sheet_holds_the_pictures() -> None:
    scenes = Scenes(ScenesData(), "val")
    sheet = np.asarray(contact_sheet(scenes, range(5), columns=4))
    assert sheet.shape == (2 * 68 + 4, 4 * 68 + 4, 3)
    assert np.array_equal(sheet[72:136, 4:68], np.asarray(scenes[4].image))
