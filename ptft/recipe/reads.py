"""What of a sample a classifier reads."""

from typing import Literal

__all__ = ["TOWERS_OF", "Reads"]

Reads = Literal["image", "text", "both"]
"""The embedding that stands before the class rows: the picture's, the text's, or the two one after
the other, each L2-normalised."""

TOWERS_OF: dict[Reads, tuple[Literal["image", "text"], ...]] = {
    "image": ("image",),
    "text": ("text",),
    "both": ("image", "text"),
}
