"""A data section for people to look at before they train: what it holds, on one page."""

from ptft.look.run import Looked, look_at

__all__ = ["Looked", "look_at"]
