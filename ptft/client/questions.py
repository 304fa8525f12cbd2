"""What can be asked, once for both clients: requests, and how their answers are read."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from ptft.client.answers import (
    Answers,
    EmbeddedItems,
    ItemClasses,
    PictureBoxes,
    PictureScores,
    RankedItem,
    read_classes,
    read_embeddings,
    read_found_boxes,
    read_ranking,
    read_scores,
)
from ptft.client.asking import PictureInput, RequestPart, ask_pictures, ask_texts
from ptft.errors import ServiceError

__all__ = [
    "Question",
    "box_options",
    "boxes_question",
    "classes_question",
    "pictures_question",
    "rerank_question",
    "similarity_question",
    "texts_question",
]

_R = TypeVar("_R")
_ENCODED = {"encoding_format": "base64"}


@dataclass(frozen=True)
class Question(Generic[_R]):
    """Requests, and what is made of the answers to all of them."""

    parts: Sequence[RequestPart]
    read: Callable[[list[tuple[Sequence[int], Mapping[str, Any]]]], _R]


def pictures_question(pictures: Sequence[PictureInput], batch: int) -> Question[EmbeddedItems]:
    """``/v1/embed/image``."""
    parts = ask_pictures("/v1/embed/image", pictures, batch, _ENCODED)
    return Question(parts, lambda answers: _embedded(answers, len(pictures)))


def texts_question(texts: Sequence[str], batch: int) -> Question[EmbeddedItems]:
    """``/v1/embed/text``."""
    parts = ask_texts("/v1/embed/text", texts, batch, _ENCODED)
    return Question(parts, lambda answers: _embedded(answers, len(texts)))


def classes_question(
    pictures: Sequence[PictureInput],
    texts: Sequence[str],
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
    top_k: int | None,
    batch: int,
) -> Question[list[ItemClasses]]:
    """``/v1/classify``."""
    if pictures and texts and len(pictures) != len(texts):
        raise ValueError(f"{len(pictures)} pictures and {len(texts)} texts: allowed: one each")
    values: dict[str, Any] = {} if top_k is None else {"top_k": top_k}
    if labels is not None:
        values["labels"] = list(labels)
    if templates is not None:
        values["templates"] = list(templates)
    count = len(pictures) or len(texts)
    if pictures:
        parts = ask_pictures("/v1/classify", pictures, batch, values, texts)
    else:
        parts = ask_texts("/v1/classify", texts, batch, values)
    return Question(parts, lambda answers: read_classes(_same_model(answers), count))


def box_options(threshold: float, most: int, nms: float | None, *, count: bool) -> dict[str, Any]:
    """Of ``/v1/detect``; ``count`` is said where it is asked for: older services know none."""
    return {"threshold": threshold, "most": most, "nms": nms, **({"count": True} if count else {})}


def boxes_question(
    pictures: Sequence[PictureInput],
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
    examples: Sequence[PictureInput],
    values: Mapping[str, Any],
    batch: int,
) -> Question[list[PictureBoxes]]:
    """``/v1/detect``: every request has all examples."""
    lists = {"labels": labels, "templates": templates}
    values = {**values, **{key: list(one) for key, one in lists.items() if one is not None}}
    parts = ask_pictures("/v1/detect", pictures, max(1, batch - len(examples)), values)
    parts = [replace(part, examples=tuple(examples)) for part in parts]
    return Question(parts, lambda answers: read_found_boxes(_same_model(answers), len(pictures)))


def similarity_question(
    pictures: Sequence[PictureInput], texts: Sequence[str], batch: int
) -> Question[PictureScores]:
    """``/v1/similarity``: every request has all texts."""
    parts = ask_pictures("/v1/similarity", pictures, batch, {"texts": list(texts)})
    return Question(parts, lambda answers: read_scores(_same_model(answers), len(pictures)))


def rerank_question(
    query: str, documents: Sequence[str | bytes | Path], top_n: int | None
) -> Question[list[RankedItem]]:
    """``/v1/rerank``, one request: a ranking is of all documents together."""
    sent = [
        {"text": one}
        if isinstance(one, str)
        else {
            "image": base64.b64encode(one if isinstance(one, bytes) else one.read_bytes()).decode()
        }
        for one in documents
    ]
    values = {"query": {"text": query}, "documents": sent, "top_n": top_n}
    return Question(
        [RequestPart("/v1/rerank", range(1), values)], lambda answers: read_ranking(answers[0][1])
    )


def _embedded(answers: Answers, count: int) -> EmbeddedItems:
    found = list(_same_model(answers))
    return read_embeddings(found, count, found[0][1]["digest"] if found else "")


def _same_model(answers: Answers) -> Answers:
    """Refuse answers of several models: their rows are of different spaces."""
    found = list(answers)
    digests = sorted({answer["digest"] for _, answer in found})
    if len(digests) > 1:
        raise ServiceError(
            f"the answers are of several models ({', '.join(digests)}): a release is under way; "
            "ask again"
        )
    return found
