"""A small copy of a picture inside a page."""

import base64
import io

from PIL import Image

__all__ = ["thumbnail_uri"]


def thumbnail_uri(picture: Image.Image, side: int) -> str:
    """A JPEG as a data URI, neither side of which is longer than ``side`` pixels."""
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
