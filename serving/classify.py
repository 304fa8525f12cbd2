"""``/v1/classify``: pictures, texts or both to the model's own classes, or zero-shot to labels.

Labels are looked at once a picture has proved readable: what is no picture costs no labels.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from ptft.artifact import ModelInfo
from ptft.errors import SampleError
from serving import schema
from serving.admission import Cost
from serving.answers import (
    Embeddings,
    encode_pictures,
    encode_texts,
    failure,
    refuse_texts,
    status_of,
    write,
)
from serving.asked import Asked
from serving.inputs import read_images
from serving.label_limits import check_labels
from serving.pictures import Picture
from serving.refusal import Refusal
from serving.waiting import items_with_queries

__all__ = ["classify"]

_MOST = 5  # classes of an answer, where not more are asked for and they exclude each other
_BYTES_A_CLASS = 64  # of an answer, and its share of the arithmetic


async def classify(asked: Asked) -> Response:
    """Answer a request."""
    model = asked.encoder.model
    info = model.info
    pictures, options = await read_images(
        asked,
        body=schema.ClassifyInputs,
        options=schema.ClassifyOptions,
        required=info.reads == "image",
    )
    texts = options.texts or []
    _check_read(info, len(pictures), len(texts))
    labels = options.labels or info.classes
    templates = options.templates or info.templates or ["{}"]
    if not labels:
        raise Refusal(422, "no_labels", f"{info.name} has no classes of its own; send labels")
    zero_shot = options.labels is not None or options.templates is not None or not model.has_head
    if zero_shot:
        refuse_texts(info)
        check_labels(asked, labels, templates)
    each = bool(info.thresholds) and not zero_shot
    top_k = options.top_k or (len(labels) if each else _MOST)
    _charge_answer(asked, max(len(pictures), len(texts)), labels, top_k)
    sets = (labels, templates) if zero_shot else None
    found, class_cd = await _encode(asked, pictures, texts, sets)
    size = len(found) * len(labels) * _BYTES_A_CLASS
    return await asked.apart(size, _answer, asked, found, class_cd, labels, top_k)


async def _encode(
    asked: Asked,
    pictures: Sequence[Picture | SampleError],
    texts: list[str],
    labels: tuple[Sequence[str], Sequence[str]] | None,
) -> tuple[Embeddings, NDArray[np.float32] | None]:
    """What the head reads of each item, and the rows of the labels; the first picture that can be
    read lets the labels begin."""
    readable = asyncio.Event()

    async def label_rows() -> NDArray[np.float32] | None:
        if labels is None:
            return None
        await readable.wait()
        return await asked.encoder.encode_labels(*labels, asked.ticket.caller)

    if not pictures:
        readable.set()
    items = _encode_inputs(asked, pictures, texts, readable)
    return await items_with_queries(items, label_rows(), readable)


def _answer(
    asked: Asked,
    found: Embeddings,
    class_cd: NDArray[np.float32] | None,
    labels: Sequence[str],
    top_k: int,
) -> Response:
    model = asked.encoder.model
    results: list[dict[str, Any]] = []
    own: list[NDArray[np.float32]] = []  # probabilities of the model's own classes
    for index, one in enumerate(found):
        if isinstance(one, SampleError):
            results.append({"index": index, "error": failure(one)})
            continue
        told: dict[str, Any] = {}
        if class_cd is None:
            probabilities = model.head_probabilities(one[None])[0]
            own.append(probabilities)
            if model.info.thresholds:
                told["labels"] = model.told(probabilities)
        else:
            probabilities = model.zero_shot_probabilities(one[None], class_cd)[0]
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        classes = [{"label": labels[c], "probability": float(probabilities[c])} for c in best]
        results.append({"index": index, "classes": classes, **told})
    if own:
        asked.drift.observe_classes(np.stack(own))
    return write(asked, "results", results, status_of(found))


def _check_read(info: ModelInfo, images: int, texts: int) -> None:
    """Refuse what the model does not read, and the lack of what it does."""
    for what, count, towers in (
        ("images", images, ("image", "both")),
        ("texts", texts, ("text", "both")),
    ):
        if count == 0 and info.reads in towers:
            needs = {"image": "images", "text": "texts", "both": "images with a text each"}
            raise Refusal(
                422, f"no_{what}", f"{what}: missing; {info.name} classifies {needs[info.reads]}"
            )
        if count and info.reads not in towers:
            raise Refusal(
                422, "invalid", f"{what}: {info.name} classifies {info.reads}s alone; leave it out"
            )
    if info.reads == "both" and images != texts:
        raise Refusal(422, "unpaired", f"{images} images and {texts} texts; allowed: one an image")


def _charge_answer(asked: Asked, items: int, labels: Sequence[str], top_k: int) -> None:
    """Hold what the answer will take: each item names its classes."""
    longest = sorted(map(len, labels), reverse=True)[:top_k]
    asked.ticket.charge(Cost(memory=items * (sum(longest) + _BYTES_A_CLASS * len(longest))))


async def _encode_inputs(
    asked: Asked,
    pictures: Sequence[Picture | SampleError],
    texts: list[str],
    readable: asyncio.Event,
) -> Embeddings:
    """What the model's head reads of each item; an item whose image fails fails alone."""
    images: Embeddings | list[None] = [None] * len(texts)
    if pictures:
        images = await encode_pictures(asked, pictures, readable)
    written: Embeddings | list[None] = [None] * len(pictures)
    if texts and readable.is_set():
        written = await encode_texts(asked, texts)
    found: list[NDArray[np.float32] | SampleError] = []
    for image, text in zip(images, written, strict=True):
        if isinstance(image, SampleError):
            found.append(image)
            continue
        assert not isinstance(text, SampleError), "texts do not fail"
        rows = (None if one is None else one[None] for one in (image, text))
        found.append(asked.encoder.model.head_input(*rows)[0])
    return found
