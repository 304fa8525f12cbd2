"""One link of the way from a recipe to a service, and whether it holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Artefact", "Link", "broken", "holds", "unchecked"]


@dataclass(frozen=True)
class Link:
    """A comparison that was made, or could not be.

    Attributes:
        name: of the link: ``recipe``, ``run``, ``hub``, ``files``, ``digest``, ``golden``.
        target: the artefact, as it was named.
        state: ``broken`` is a failure, ``unchecked`` is none.
        detail: what was compared or found, one line.
    """

    name: str
    target: str
    state: Literal["ok", "broken", "unchecked"]
    detail: str


@dataclass(frozen=True)
class Artefact:
    """What the artefacts that come after it are held against.

    Attributes:
        target: as it was named.
        digest: of the model folder; "" of a run.
        weights, recipe: digests that it records, in hex; "" where it records none.
        folder: that holds its files; None where there is only a digest.
        run: the folder of a run; None of any other.
    """

    target: str
    digest: str = ""
    weights: str = ""
    recipe: str = ""
    folder: Path | None = None
    run: Path | None = None


def holds(name: str, target: str, detail: str) -> Link:
    """A link that holds."""
    return Link(name, target, "ok", detail)


def broken(name: str, target: str, detail: object) -> Link:
    """A link that does not; of a message over several lines the first is kept."""
    return Link(name, target, "broken", str(detail).split("\n")[0])


def unchecked(name: str, target: str, detail: str) -> Link:
    """A link of which nothing is known."""
    return Link(name, target, "unchecked", detail)
