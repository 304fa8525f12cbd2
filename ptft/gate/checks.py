"""One thing that was held against one bound."""

from dataclasses import dataclass

__all__ = ["Check"]


@dataclass(frozen=True)
class Check:
    """A comparison that was made.

    Attributes:
        name: of a figure, or ``digest``, ``golden``, ``live``.
        ok: whether it holds.
        detail: value and bound, one line.
    """

    name: str
    ok: bool
    detail: str
