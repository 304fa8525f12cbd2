"""What the service answers, as values: arrays of float32, and what failed beside them."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Answers",
    "EmbeddedItems",
    "FoundBox",
    "ItemClasses",
    "PictureBoxes",
    "PictureScores",
    "RankedItem",
    "ServiceModel",
    "read_classes",
    "read_embeddings",
    "read_found_boxes",
    "read_model",
    "read_ranking",
    "read_scores",
]

Answers = Iterable[tuple[Sequence[int], Mapping[str, Any]]]
"""Of each part of a request: the places of its items, and the answer's JSON."""


@dataclass(frozen=True)
class ServiceModel:
    """What is served.

    Attributes:
        name: of the model.
        digest: of its folder, ``sha256:...``.
        dim: D, of its embeddings.
        context_length: longest text in tokens; the rest is cut.
        image_size: height and width in pixels.
        reads: what its own classes are of: image, text or both.
        classes: its own; empty without a head.
        precision: of the ONNX files that run.
        texts: ``refused`` where it answers no texts, ``warned`` where they hardly find its
            pictures, else ``yes``.
        thresholds: of classes that do not exclude each other, in their order; empty of others.
        nms: of a detector, the IoU from which of two boxes of a class the surer is told, unless
            another is asked for; None: all are.
        counts: whether it is a detector that counts.
    """

    name: str
    digest: str
    dim: int
    context_length: int
    image_size: tuple[int, int]
    reads: str
    classes: tuple[str, ...]
    precision: str
    texts: str = "yes"
    thresholds: tuple[float, ...] = ()
    nms: float | None = None
    counts: bool = False


@dataclass(frozen=True)
class EmbeddedItems:
    """Embeddings of pictures or texts.

    Attributes:
        rows: float32 (N, D), each of length 1, in the order of what was sent; NaN where an item
            failed.
        failed: place -> why.
        digest: of the model that gave them.
    """

    rows: NDArray[np.float32]
    failed: dict[int, str]
    digest: str


@dataclass(frozen=True)
class ItemClasses:
    """The most probable classes of a picture or a text.

    Attributes:
        classes: label and probability, the most probable first.
        failed: why there are none; "" else.
        labels: of a model whose classes do not exclude each other, those that reach their
            thresholds; None of any other.
    """

    classes: tuple[tuple[str, float], ...] = ()
    failed: str = ""
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FoundBox:
    """A thing in a picture.

    Attributes:
        label: what it was found by; None where that was an example.
        example: place of that; None where it was a label.
        score: probability.
        corners: left, top, right, bottom in pixels of the upright picture.
    """

    label: str | None
    example: int | None
    score: float
    corners: tuple[float, float, float, float]


@dataclass(frozen=True)
class PictureBoxes:
    """What is found in a picture, the surest first.

    Attributes:
        size: width and height of the upright picture.
        failed: why there is nothing; "" else.
        counts: boxes of each class, where that was asked for; None else.
    """

    boxes: tuple[FoundBox, ...] = ()
    size: tuple[int, int] = (0, 0)
    failed: str = ""
    counts: Mapping[str, int] | None = None


@dataclass(frozen=True)
class PictureScores:
    """Pictures against texts.

    Attributes:
        cosines: float32 (N, T); NaN where a picture failed.
        scores: float32 (N, T): the logits by which the model ranks.
        failed: place of a picture -> why.
    """

    cosines: NDArray[np.float32]
    scores: NDArray[np.float32]
    failed: dict[int, str]


@dataclass(frozen=True)
class RankedItem:
    """A document's place in a ranking.

    Attributes:
        index: in what was sent.
        score: cosine to the query.
    """

    index: int
    score: float


@dataclass
class _Rows:
    """Rows that come in parts."""

    count: int
    found: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def stack(self) -> NDArray[np.float32]:
        """(N, D), NaN where there is none."""
        width = len(next(iter(self.found.values()))) if self.found else 0
        rows = np.full((self.count, width), np.nan, np.float32)
        for place, row in self.found.items():
            rows[place] = row
        return rows


def read_model(values: Mapping[str, Any]) -> ServiceModel:
    """Of ``/v1/model``."""
    height, width = values["image_size"]
    return ServiceModel(
        name=values["model"],
        digest=values["digest"],
        dim=values["dim"],
        context_length=values["context_length"],
        image_size=(height, width),
        reads=values["reads"],
        classes=tuple(values["classes"]),
        precision=values["precision"],
        texts=values.get("texts", "yes"),
        thresholds=tuple(values.get("thresholds", ())),
        nms=values.get("nms"),
        counts=values.get("counts", False),
    )


def read_embeddings(answers: Answers, count: int, digest: str) -> EmbeddedItems:
    """Of ``/v1/embed/image`` and ``/v1/embed/text``, in base64."""
    rows = _Rows(count)
    for place, one in _results(answers):
        if "embedding" in one:
            rows.found[place] = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
        else:
            rows.failed[place] = one["error"]["message"]
    return EmbeddedItems(rows.stack(), rows.failed, digest)


def read_classes(answers: Answers, count: int) -> list[ItemClasses]:
    """Of ``/v1/classify``."""
    found = [ItemClasses()] * count
    for place, one in _results(answers):
        if "classes" in one:
            pairs = tuple((each["label"], each["probability"]) for each in one["classes"])
            told = one.get("labels")
            found[place] = ItemClasses(pairs, labels=None if told is None else tuple(told))
        else:
            found[place] = ItemClasses(failed=one["error"]["message"])
    return found


def read_found_boxes(answers: Answers, count: int) -> list[PictureBoxes]:
    """Of ``/v1/detect``."""
    found = [PictureBoxes()] * count
    for place, one in _results(answers):
        if "boxes" in one:
            boxes = tuple(
                FoundBox(each.get("label"), each.get("example"), each["score"], tuple(each["box"]))
                for each in one["boxes"]
            )
            size = (one["width"], one["height"])
            found[place] = PictureBoxes(boxes, size, counts=one.get("counts"))
        else:
            found[place] = PictureBoxes(failed=one["error"]["message"])
    return found


def read_scores(answers: Answers, count: int) -> PictureScores:
    """Of ``/v1/similarity``."""
    cosines, scores = _Rows(count), _Rows(count)
    for place, one in _results(answers):
        if "scores" in one:
            cosines.found[place] = np.array(one["cosines"], np.float32)
            scores.found[place] = np.array(one["scores"], np.float32)
        else:
            cosines.failed[place] = one["error"]["message"]
    return PictureScores(cosines.stack(), scores.stack(), cosines.failed)


def read_ranking(answer: Mapping[str, Any]) -> list[RankedItem]:
    """Of ``/v1/rerank``."""
    return [RankedItem(one["index"], one["relevance_score"]) for one in answer["results"]]


def _results(answers: Answers) -> Iterable[tuple[int, Mapping[str, Any]]]:
    for places, answer in answers:
        for one in answer["results"]:
            yield places[one["index"]], one
