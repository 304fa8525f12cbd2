"""Scenes: coloured shapes with compositional captions, drawn from a seed, for any machine.

A scene is two things, one left of or above the other; a thing has a size, a pattern, a colour and
a shape. Each pair of a colour and a shape is either seen or held out: ``train`` shows only seen
pairs, and in ``val`` and ``test`` both things are of held-out pairs, so that a model is asked about
colours on shapes it never saw them on. Captions name every attribute, so that one caption fits one
scene; no scene comes twice in ``val`` and ``test`` together.
"""

from functools import cached_property

import numpy as np
from PIL import Image

from ptft.data.boxes.box import Boxes
from ptft.data.hashing import digest_of, hash_integers, permutation, uniforms
from ptft.data.label_sets import LabelSets
from ptft.data.sample import Sample, SampleSet
from ptft.data.sources.drawing import COLOURS, PATTERNS, SIZES, Scene, Thing, draw_marked
from ptft.data.sources.shapes import SHAPES
from ptft.errors import DataError
from ptft.recipe.data import ScenesData

__all__ = ["Scenes", "captions_of", "held_out_pairs"]

_SPLITS = {"train": 0, "val": 1, "test": 2}
_PAIRS = len(SHAPES) * len(COLOURS)
_KINDS = len(SIZES) * len(PATTERNS)  # of one pair
_WHAT, _HOW = 1, 2  # what a scene shows, and how it is drawn, are drawn apart


class Scenes(SampleSet):
    """One split of the scenes of a data section. The class of a scene is the shape of its first
    (left or upper) thing; where it may have several, they are the colours and the shapes of both.
    Its boxes mark both, each of the class that its colour and shape name.

    Args:
        section: sizes, style, share held out and seed.
        split: ``train``, ``val`` or ``test``.

    Raises:
        DataError: ``val`` and ``test`` ask for more scenes than the held-out pairs can make.
    """

    def __init__(self, section: ScenesData, split: str) -> None:
        self.section = section
        self.split = split
        self.classes = list(SHAPES)
        if section.labels == "many":
            self.classes = [*COLOURS, *SHAPES]
            self.label_sets = _COLOURS_AND_SHAPES
        held = held_out_pairs(section.held_out, section.seed)
        seen = np.setdiff1d(np.arange(_PAIRS), held)
        self._pairs: list[int] = (seen if split == "train" else held).tolist()
        self.box_classes = [_pair_name(pair) for pair in self._pairs]
        if split != "train":
            self._check_room()

    def __len__(self) -> int:
        return {"train": self.section.train, "val": self.section.val, "test": self.section.test}[
            self.split
        ]

    def __getitem__(self, index: int) -> Sample:
        scene = self.scene(index)
        key = hash_integers(self.section.seed, _HOW, _SPLITS[self.split], index)
        pixels, corners = draw_marked(scene, self.section.style, self.section.size, key)
        label = self._label(scene)
        marked = [self._pairs.index(_pair(thing)) for thing in (scene.first, scene.second)]
        captions = captions_of(scene, self.split)
        boxes = Boxes.of(corners, marked)
        return Sample(self.name(index), Image.fromarray(pixels), captions, label, boxes)

    def name(self, index: int) -> str:
        return f"{self.section.style}/{self.split}/{index:06d}"

    def captions(self, index: int) -> tuple[str, ...]:
        return captions_of(self.scene(index), self.split)

    def describe(self, index: int) -> tuple[tuple[str, ...], int]:
        scene = self.scene(index)
        return captions_of(scene, self.split), self._label(scene)

    def fingerprint(self) -> str:
        plain = {"labels"} if self.section.labels == "one" else None  # as before there was a choice
        return digest_of(self.section.model_dump_json(exclude=plain), self.split)

    def labels(self) -> np.ndarray:
        found = [self._label(self.scene(index)) for index in range(len(self))]
        return np.array(found, np.int64)

    def _label(self, scene: Scene) -> int:
        """The class of a scene; of several the number of their set, which is that of both pairs."""
        if self.label_sets is None:
            return SHAPES.index(scene.first.shape)
        return _pair(scene.first) * _PAIRS + _pair(scene.second)

    def scene(self, index: int) -> Scene:
        """What scene ``index`` shows; the same in both styles."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.split} has {len(self)} scenes; there is no number {index}")
        if self.split == "train":
            draw = uniforms(hash_integers(self.section.seed, _WHAT, index), 1)[0]
            return self._decode(int(draw * self._count))
        place = index if self.split == "val" else -1 - index
        return self._decode(int(self._shuffled[place]))

    @property
    def _count(self) -> int:
        """Number of scenes that these pairs make; both things are never of one pair."""
        pairs = len(self._pairs)
        return 2 * pairs * (pairs - 1) * _KINDS**2

    @cached_property
    def _shuffled(self) -> np.ndarray:
        """All held-out scenes in random order: val takes from the front, test from the back."""
        return permutation(hash_integers(self.section.seed, _WHAT), self._count)

    def _decode(self, number: int) -> Scene:
        """The scene of a number below ``_count``: a mixed-radix digit for each choice."""
        number, vertical = divmod(number, 2)
        number, first_kind = divmod(number, _KINDS)
        number, second_kind = divmod(number, _KINDS)
        second, first = divmod(number, len(self._pairs))
        second += second >= first  # any pair but the first's
        return Scene(
            _thing(self._pairs[first], first_kind),
            _thing(self._pairs[second], second_kind),
            bool(vertical),
        )

    def _check_room(self) -> None:
        section = self.section
        if section.val + section.test > self._count:
            raise DataError(
                f"data.val + data.test: {section.val + section.test} scenes; the "
                f"{len(self._pairs)} pairs of colour and shape that data.held_out: "
                f"{section.held_out} holds out make only {self._count}"
            )


def held_out_pairs(share: float, seed: int) -> np.ndarray:
    """The pairs of shape and colour that training never shows, as ``shape * 8 + colour``, sorted.

    They are taken diagonal by diagonal, so that no shape and no colour loses more than one pair
    more than another. At least two are held out, and every shape and colour keeps one.
    """
    count = min(max(round(share * _PAIRS), 2), _PAIRS - len(COLOURS))
    colours = permutation(hash_integers(seed, 3), len(COLOURS))
    shapes = permutation(hash_integers(seed, 4), len(SHAPES))
    places = np.arange(count)
    diagonal, row = np.divmod(places, len(SHAPES))
    return np.sort(shapes[row] * len(COLOURS) + colours[(row + diagonal) % len(COLOURS)])


def captions_of(scene: Scene, split: str) -> tuple[str, ...]:
    """What is true of a scene, in words: ``train`` has four ways to say it, the others the first.

    Every caption names every attribute: it is false of any other scene.
    """
    one, other = f"a {scene.first}", f"a {scene.second}"
    before, after = ("above", "below") if scene.vertical else ("left of", "right of")
    plain = f"{one} {before} {other}"
    if split != "train":
        return (plain,)
    beyond = "beneath it" if scene.vertical else "to its right"
    where = "over" if scene.vertical else "to the left of"
    return (
        plain,
        f"{other} {after} {one}",
        f"{one} {where} {other}",
        f"{one} and, {beyond}, {other}",
    )


def _colours_and_shapes() -> LabelSets:
    """The set of each pair of pairs of a colour and a shape."""
    own = [(pair % len(COLOURS), len(COLOURS) + pair // len(COLOURS)) for pair in range(_PAIRS)]
    return LabelSets.of(
        (sorted({*first, *second}) for first in own for second in own), len(COLOURS) + len(SHAPES)
    )


_COLOURS_AND_SHAPES = _colours_and_shapes()


def _pair(thing: Thing) -> int:
    return SHAPES.index(thing.shape) * len(COLOURS) + COLOURS.index(thing.colour)


def _pair_name(pair: int) -> str:
    shape, colour = divmod(pair, len(COLOURS))
    return f"{COLOURS[colour]} {SHAPES[shape]}"


def _thing(pair: int, kind: int) -> Thing:
    shape, colour = divmod(pair, len(COLOURS))
    size, pattern = divmod(kind, len(PATTERNS))
    return Thing(SIZES[size], PATTERNS[pattern], COLOURS[colour], SHAPES[shape])
