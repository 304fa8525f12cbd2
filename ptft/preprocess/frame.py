"""Where a picture's pixels come to lie in what a model is given, and back.

Shape letter: T boxes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptft.errors import ModelError
from ptft.preprocess.resizing import ResizeMode, resized_size

__all__ = ["Frame", "frame_of"]


@dataclass(frozen=True)
class Frame:
    """How pixels of a picture lie in a model's input: x * across + left, as shares of its sides.

    Attributes:
        across, down: shares of the input's width and height that a pixel takes.
        left, top: where the picture's corner lies, as shares.
        size: width and height of the picture.
    """

    across: float
    down: float
    left: float
    top: float
    size: tuple[int, int]

    def to_shares(self, corners: NDArray[np.float32]) -> NDArray[np.float32]:
        """Corner boxes in pixels (T, 4) -> centre x, centre y, width, height as shares (T, 4)."""
        scale = np.array([self.across, self.down] * 2, np.float32)
        offset = np.array([self.left, self.top] * 2, np.float32)
        placed = corners * scale + offset
        centre = (placed[:, :2] + placed[:, 2:]) / 2
        return np.concatenate([centre, placed[:, 2:] - placed[:, :2]], axis=1, dtype=np.float32)

    def to_pixels(self, shares: NDArray[np.float32]) -> NDArray[np.float32]:
        """The way back, cut to the picture: (T, 4) -> left, top, right, bottom in pixels."""
        half = shares[:, 2:] / 2
        placed = np.concatenate([shares[:, :2] - half, shares[:, :2] + half], axis=1)
        scale = np.array([self.across, self.down] * 2, np.float32)
        offset = np.array([self.left, self.top] * 2, np.float32)
        limits = np.array([*self.size, *self.size], np.float32)
        return np.clip((placed - offset) / scale, 0.0, limits).astype(np.float32)


def frame_of(size: tuple[int, int], target: tuple[int, int], mode: ResizeMode) -> Frame:
    """The frame of a picture that ``ImagePreprocess.pixels`` makes a model's input of.

    Args:
        size: width and height of the upright picture.
        target: height and width that the model takes.
        mode: how it resizes.

    Raises:
        ModelError: the mode crops, so that boxes would be lost.
    """
    width, height = size
    target_height, target_width = target
    if mode == "shortest":
        raise ModelError(
            "a detector that crops pictures to their middle would lose what lies at the edges; "
            "allowed: squash, longest"
        )
    new_width, new_height = resized_size(size, target, mode)
    left, top = (target_width - new_width) // 2, (target_height - new_height) // 2
    return Frame(
        across=new_width / width / target_width,
        down=new_height / height / target_height,
        left=left / target_width,
        top=top / target_height,
        size=size,
    )
