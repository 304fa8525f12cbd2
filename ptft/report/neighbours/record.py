"""``neighbours.json``: what a model found nearest, before and after training, for people to see."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ptft.artifact import RunFiles, read_as

__all__ = ["Answer", "NearestFound", "NeighbourPicture", "Neighbours", "read_neighbours"]


@dataclass(frozen=True)
class NeighbourPicture:
    """A candidate as the page shows it: its caption or class, and a small copy as a data URI."""

    name: str
    says: str
    image: str


@dataclass(frozen=True)
class NearestFound:
    """One of the nearest: a picture (its key) or a text; ``right`` where that can be told."""

    right: bool | None
    picture: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Answer:
    """What one query found, nearest first.

    Attributes:
        kind: which way was searched.
        picture, text: the query: the key of a picture, or a text.
        found: the nearest few.
        rank: place of the first right one among all, from 1; None where none is known.
        among: how many there are.
    """

    kind: Literal["text_to_picture", "picture_to_text", "picture_to_picture"]
    found: list[NearestFound]
    rank: int | None
    among: int
    picture: str | None = None
    text: str | None = None


@dataclass
class Neighbours:
    """``neighbours.json``.

    Attributes:
        source: which samples were searched, in words; empty where none were.
        reason: why nothing is shown, where that is so.
        texts: what the texts are: ``captions``, ``classes``, or empty where there are none.
        right: what makes a picture right for a picture, in words; empty where nothing does.
        pictures: by key.
        before, after: of training.
    """

    source: str = ""
    reason: str = ""
    texts: str = ""
    right: str = ""
    pictures: dict[str, NeighbourPicture] = field(default_factory=dict)
    before: list[Answer] = field(default_factory=list)
    after: list[Answer] = field(default_factory=list)


def read_neighbours(folder: Path) -> Neighbours | None:
    """Read what was found so far; None where nothing was asked.

    Raises:
        ArtifactError: the file is no JSON, or holds values of other types.
    """
    path = folder / RunFiles.NEIGHBOURS
    if not path.is_file():
        return None
    return read_as(path, Neighbours)
