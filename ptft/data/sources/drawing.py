"""Two things drawn beside each other, in one of two styles; numpy alone.

Every shape is a signed distance (``shapes``), negative inside. From one distance come the
antialiased silhouette, its soft shadow, the bevel that catches the light, and the thin outline of
the line style. Only operations that IEEE 754 rounds exactly touch the arrays (no sines, no matrix
products), so that every machine draws the same.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from ptft.data.hashing import uniforms
from ptft.data.sources.shapes import DISTANCES

__all__ = ["COLOURS", "PATTERNS", "SIZES", "Scene", "Thing", "draw_marked", "draw_scene"]

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
PATTERNS = ("plain", "striped", "dotted")
SIZES = ("small", "large")

_FILL = {  # RGB of a lit surface
    "red": (214, 38, 38),
    "orange": (242, 134, 24),
    "yellow": (246, 214, 40),
    "green": (44, 158, 62),
    "cyan": (44, 196, 204),
    "blue": (40, 84, 210),
    "purple": (128, 52, 176),
    "pink": (246, 138, 190),
}
_RADIUS = {"small": (0.118, 0.138), "large": (0.196, 0.215)}  # of the image's side
_REACH = 1.12  # of the radius: the points of stars and triangles
_TILT = {"heart": 0.25, "moon": 0.5, "square": 0.3, "cross": 0.3}  # radians, either way
_DRAWS = 48  # uniform numbers a scene uses at most


@dataclass(frozen=True)
class Thing:
    """One object of a scene, by the names in SIZES, PATTERNS, COLOURS and SHAPES."""

    size: str
    pattern: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.pattern} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Two things, the first left of the second or, if ``vertical``, above it."""

    first: Thing
    second: Thing
    vertical: bool


def draw_scene(scene: Scene, style: str, side: int, key: int) -> np.ndarray:
    """Draw a scene.

    Args:
        scene: what it shows.
        style: ``shaded`` (lit, textured, with shadows, on varied grounds) or ``line`` (thin
            coloured strokes on white).
        side: height and width in pixels.
        key: draws everything that the caption does not say: places, tilt, light, tints, ground.

    Returns:
        RGB, uint8 (side, side, 3).
    """
    return draw_marked(scene, style, side, key)[0]


def draw_marked(scene: Scene, style: str, side: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene, and say where its things are; arguments as of :func:`draw_scene`.

    Returns:
        RGB, uint8 (side, side, 3); and left, top, right, bottom of the first and the second thing's
        silhouette in pixels, float32 (2, 4).
    """
    draws = iter(uniforms(key, _DRAWS).tolist())
    placed = _place(scene, side, draws)
    if style == "line":
        canvas = np.full((3, side, side), 253.0, np.float32)
        boxes = [_sketch(canvas, *one, draws) for one in placed]
    else:
        light = 2 * math.pi * next(draws)
        sun = (round(math.cos(light), 6), round(math.sin(light), 6))
        canvas = _ground(side, draws)
        boxes = [_paint(canvas, *one, sun, draws) for one in placed]
    canvas += np.float32(0.5)
    channels = np.minimum(np.maximum(canvas, 0), 255).astype(np.uint8)
    return np.ascontiguousarray(channels.transpose(1, 2, 0)), np.array(boxes, np.float32)


def _place(
    scene: Scene, side: int, draws: Iterator[float]
) -> list[tuple[Thing, float, float, float]]:
    """Centre and radius in pixels of both things, each within its own half of the picture."""
    radii = []
    for thing in (scene.first, scene.second):
        low, high = _RADIUS[thing.size]
        radii.append(side * (low + (high - low) * next(draws)))
    across = []  # along the axis of the relation: within the first half, within the second
    for half, radius in enumerate(radii):
        room = radius * _REACH + 0.5
        low, high = half * side / 2 + room, (half + 1) * side / 2 - room
        across.append(low + max(high - low, 0.0) * next(draws))
    # along the other axis both drift together, and apart by so little that the relation is clear
    apart = 0.3 * (across[1] - across[0])
    room = side / 2 - max(radii) * _REACH - apart / 2 - 0.5
    middle = side / 2 + max(room, 0.0) * (2 * next(draws) - 1)
    lean = apart * (next(draws) - 0.5)
    along = (middle - lean, middle + lean)
    things = (scene.first, scene.second)
    if scene.vertical:
        return [(things[i], along[i], across[i], radii[i]) for i in (0, 1)]
    return [(things[i], across[i], along[i], radii[i]) for i in (0, 1)]


@cache
def _axis(side: int) -> np.ndarray:
    return np.arange(side, dtype=np.float32) + np.float32(0.5)


@cache
def _grain() -> np.ndarray:
    """A tile of noise in [-1, 1), float32 (256, 256), smoothed a little."""
    noise = uniforms(7, 256 * 256).reshape(256, 256).astype(np.float32) * 2 - 1
    return (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) * np.float32(0.5)


@cache
def _waves() -> np.ndarray:
    """Smooth curves over [0, 1) in 512 steps, float32 (24, 512), rounded so that every libm
    agrees."""
    phases = uniforms(11, 24).tolist()
    rows = [
        [round(math.sin(2 * math.pi * ((0.4 + 0.14 * n) * t / 512 + phase)), 5) for t in range(512)]
        for n, phase in enumerate(phases)
    ]
    return np.array(rows, np.float32)


def _ground(side: int, draws: Iterator[float]) -> np.ndarray:
    """A muted surface: two tints that blend in soft waves, with grain. float32 (3, side, side)."""
    brightness = 0.42 + 0.45 * next(draws)
    tint = [255 * brightness + 34 * (next(draws) - 0.5) for _ in range(3)]
    other = [value * (0.72 + 0.5 * next(draws)) for value in tint]
    bank = _waves()
    steps = np.arange(side) * 512 // side
    picks = [int(next(draws) * len(bank)) for _ in range(4)]
    a, b, c, d = (bank[pick][steps] for pick in picks)
    blend = (a[:, None] * b + c[:, None] + d) * np.float32(1 / 6) + np.float32(0.5)
    top, left = int(next(draws) * (256 - side % 256)), int(next(draws) * (256 - side % 256))
    grain = _tile(side, top, left) * np.float32(2 + 10 * next(draws) ** 2)
    low = _channels(tint)
    return blend * (_channels(other) - low) + (grain + low)


def _channels(values: list[float]) -> np.ndarray:
    """Red, green and blue, to be spread over (3, h, w)."""
    return np.array(values, np.float32).reshape(3, 1, 1)


def _tile(side: int, top: int, left: int) -> np.ndarray:
    grain = _grain()
    if top + side <= 256 and left + side <= 256:
        return grain[top : top + side, left : left + side]
    rows = (np.arange(side) + top) % 256
    return grain[rows][:, (np.arange(side) + left) % 256]


@dataclass(frozen=True)
class _Patch:
    """The part of a canvas around a thing, with the thing's own coordinates."""

    rows: slice
    columns: slice
    dx: np.ndarray  # (1, w) pixels right of the centre
    dy: np.ndarray  # (h, 1) pixels below it
    x: np.ndarray  # (h, w) in units of the radius, turned by the tilt
    y: np.ndarray  # (h, w), upwards
    distance: np.ndarray  # (h, w) pixels, negative inside


def _patch(
    side: int, shape: str, x: float, y: float, radius: float, reach: float, tilt: float
) -> _Patch:
    rows = slice(max(int(y - reach), 0), min(int(y + reach) + 2, side))
    columns = slice(max(int(x - reach), 0), min(int(x + reach) + 2, side))
    axis = _axis(side)
    dx, dy = axis[None, columns] - np.float32(x), axis[rows, None] - np.float32(y)
    cosine = np.float32(round(math.cos(tilt), 6) / radius)
    sine = np.float32(round(math.sin(tilt), 6) / radius)
    own_x, own_y = dx * cosine + dy * sine, dx * sine - dy * cosine
    distance = DISTANCES[shape](own_x, own_y) * np.float32(radius)
    return _Patch(rows, columns, dx, dy, own_x, own_y, distance)


def _cover(distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """Share of each pixel that lies inside, in [0, 1]; the edge is ``softness`` pixels wide."""
    scale = np.float32(-1.0 / softness)
    return np.minimum(np.maximum(distance * scale + np.float32(0.5), 0), 1)


def _pattern(thing: Thing, patch: _Patch, radius: float, draws: Iterator[float]) -> np.ndarray:
    """Signed distance in pixels to the stripes or the dots; negative on them."""
    if thing.pattern == "striped":
        angle = 0.5 + 0.6 * next(draws)
        period = max(radius * 0.46, 4.0)  # pixels; below 4 stripes blur at 64 pixels
        cosine = np.float32(round(math.cos(angle), 6) * radius / period)
        sine = np.float32(round(math.sin(angle), 6) * radius / period)
        phase = patch.x * cosine + patch.y * sine + np.float32(8 + next(draws))
        saw = phase - np.floor(phase) - np.float32(0.5)
        return (np.abs(saw) - np.float32(0.24)) * np.float32(period)
    period = max(radius * 0.52, 4.4)
    scale = np.float32(radius / period)
    across = patch.x * scale + np.float32(8 + next(draws))
    up = patch.y * scale + np.float32(8 + next(draws))
    across -= np.floor(across) + np.float32(0.5)
    up -= np.floor(up) + np.float32(0.5)
    reach = np.sqrt(across * across + up * up)
    return (reach - np.float32(0.30)) * np.float32(period)


def _paint(
    canvas: np.ndarray,
    thing: Thing,
    x: float,
    y: float,
    radius: float,
    sun: tuple[float, float],
    draws: Iterator[float],
) -> tuple[int, int, int, int]:
    side = canvas.shape[-1]
    tilt = _TILT.get(thing.shape, 0.35) * (2 * next(draws) - 1)
    throw = radius * 0.22  # how far the shadow falls
    patch = _patch(side, thing.shape, x, y, radius, radius * 1.2 + throw + 2, tilt)
    area = canvas[:, patch.rows, patch.columns]
    # the shadow is the silhouette blurred and moved away from the light by whole pixels
    shadow = _cover(patch.distance, softness=radius * 0.35)
    down, right = round(-sun[1] * throw), round(-sun[0] * throw)
    shadow = _moved(shadow, down, right)
    area *= 1 - np.float32(0.5) * shadow
    # a bevel rises over the outer third; the side towards the light is brighter
    rise = np.minimum(patch.distance * np.float32(-2.4 / radius), 1)
    facing = (patch.dx * np.float32(sun[0]) + patch.dy * np.float32(sun[1])) * np.float32(
        1 / radius
    )
    shade = np.float32(0.84) + np.float32(0.16) * rise + np.float32(0.24) * facing
    gleam_x = patch.dx - np.float32(sun[0] * radius * 0.42)
    gleam_y = patch.dy - np.float32(sun[1] * radius * 0.42)
    gleam = 1 - (gleam_x * gleam_x + gleam_y * gleam_y) * np.float32(1 / (0.45 * radius) ** 2)
    gleam = np.maximum(gleam, 0)
    gleam *= gleam * np.float32(70 * (0.3 + 0.7 * next(draws)))
    fill = [value * (0.92 + 0.16 * next(draws)) for value in _FILL[thing.colour]]
    tone = _channels(fill)
    if thing.pattern != "plain":
        # marks are of the same hue, nearly white or dark, so that the colour's name stays true
        towards = 255.0 if next(draws) < 0.7 else 20.0
        change = _channels([0.72 * (towards - value) for value in fill])
        tone = tone + _cover(_pattern(thing, patch, radius, draws)) * change
    lit = tone * shade
    lit += gleam
    lit -= area
    lit *= _cover(patch.distance)
    area += lit
    return _bounds(patch, patch.distance < 0)


def _moved(mask: np.ndarray, down: int, right: int) -> np.ndarray:
    """A mask moved by whole pixels, zero where nothing moved in."""
    height, width = mask.shape
    moved = np.zeros_like(mask)
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = mask[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved


def _sketch(
    canvas: np.ndarray, thing: Thing, x: float, y: float, radius: float, draws: Iterator[float]
) -> tuple[int, int, int, int]:
    side = canvas.shape[-1]
    tilt = _TILT.get(thing.shape, 0.35) * (2 * next(draws) - 1)
    patch = _patch(side, thing.shape, x, y, radius, radius * 1.2 + 2, tilt)
    pen = side / 64 * (1.0 + 0.3 * next(draws))  # width of the strokes in pixels
    ink = _cover(np.abs(patch.distance) - np.float32(pen / 2))
    if thing.pattern != "plain":
        marks = np.abs(_pattern(thing, patch, radius, draws)) - np.float32(pen * 0.3)
        # marks keep clear of the outline
        inside = np.maximum(marks, patch.distance + np.float32(pen))
        ink = np.maximum(ink, _cover(inside) * np.float32(0.8))
    tone = _channels([value * (0.80 + 0.16 * next(draws)) for value in _FILL[thing.colour]])
    paper = canvas[:, patch.rows, patch.columns]
    paper += (tone - paper) * ink
    return _bounds(patch, patch.distance < np.float32(pen / 2))


def _bounds(patch: _Patch, inside: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of a patch that are inside."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top, left = patch.rows.start, patch.columns.start
    return (
        left + int(columns[0]),
        top + int(rows[0]),
        left + int(columns[-1]) + 1,
        top + int(rows[-1]) + 1,
    )
