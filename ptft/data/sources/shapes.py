"""Shapes as signed distances: negative inside, 0 on the outline, about 1 in radius.

After Quilez, "2D distance functions". ``x`` runs to the right and ``y`` upwards, both arrays of one
shape in units of the radius. No operation but those that IEEE 754 rounds exactly.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["DISTANCES", "SHAPES"]


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y) - np.float32(0.92)


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.80)


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    y = y + np.float32(0.05)
    slope = np.abs(x) * np.float32(0.866025) + y * np.float32(0.5)
    return np.maximum(-y, slope) - np.float32(0.54)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five points: folded twice by 36 degrees, then one edge (Quilez, sdStar5)."""
    cosine, sine = np.float32(0.809017), np.float32(0.587785)
    x = np.abs(x)
    fold = np.maximum(cosine * x - sine * y, 0) * 2
    x, y = x - fold * cosine, y + fold * sine
    fold = np.maximum(-cosine * x - sine * y, 0) * 2
    x, y = np.abs(x + fold * cosine), y + fold * sine - np.float32(1.06)
    edge_x, edge_y = 0.48 * 0.587785, 0.48 * 0.809017 - 1.0
    along = (x * np.float32(edge_x) + y * np.float32(edge_y)) * np.float32(
        1 / (edge_x**2 + edge_y**2)
    )
    along = np.minimum(np.maximum(along, 0), np.float32(1.06))
    away_x, away_y = x - along * np.float32(edge_x), y - along * np.float32(edge_y)
    length = np.sqrt(away_x * away_x + away_y * away_y)
    inside = y * np.float32(edge_x) < x * np.float32(edge_y)
    return np.where(inside, -length, length)


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two quarter circles over a turned square (Quilez, sdHeart)."""
    x, y = np.abs(x) * np.float32(0.62), y * np.float32(0.62) + np.float32(0.56)
    lobe_x, lobe_y = x - np.float32(0.25), y - np.float32(0.75)
    lobe = np.sqrt(lobe_x * lobe_x + lobe_y * lobe_y) - np.float32(0.353553)
    near = np.maximum(x + y, 0) * np.float32(0.5)
    low_x, low_y, high_y = x - near, y - near, y - 1
    side = np.minimum(low_x * low_x + low_y * low_y, x * x + high_y * high_y)
    side = np.where(x < y, -np.sqrt(side), np.sqrt(side))
    return np.where(x + y > 1, lobe, side) * np.float32(1 / 0.62)


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    bar = np.maximum(x - np.float32(0.95), y - np.float32(0.32))
    post = np.maximum(x - np.float32(0.32), y - np.float32(0.95))
    return np.minimum(bar, post)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.sqrt(x * x + y * y) - np.float32(0.68)) - np.float32(0.25)


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bite = x - np.float32(0.48)
    outer = np.sqrt(x * x + y * y) - np.float32(0.96)
    return np.maximum(outer, np.float32(0.80) - np.sqrt(bite * bite + y * y))


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "ring": _ring,
    "moon": _moon,
}

SHAPES = tuple(DISTANCES)
"""Names; their order is that of the classes."""
