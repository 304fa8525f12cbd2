"""Inputs of the clients' APIs to embeddings: texts and pictures in whichever form they come.

An input is a string, ``{"text": ...}``, ``{"image": ...}``, a part of OpenAI's messages, or a
message or ``{"content": [...]}`` of one such part. What all of them cost together is charged before
the first runs; they run in batches of ``PTFT_MAX_BATCH``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptft.errors import SampleError
from ptft.files.bounds import shown
from serving.answers import Embeddings, refuse_texts
from serving.asked import Asked
from serving.inputs import (
    check_characters,
    is_token_ids,
    is_url,
    read_strings,
    token_ids,
)
from serving.pictures import Picture
from serving.refusal import Refusal
from serving.schema import MAX_TEXT

__all__ = ["Item", "count_pictures", "encode_items", "read_item", "read_items", "read_message"]

_ALLOWED = 'a text, {"text": ...} or {"image": ...}'


@dataclass(frozen=True, slots=True)
class Item:
    """An input.

    Attributes:
        kind: what it is.
        value: the text, or the picture as base64, data URI or URL.
        place: where it stands, for messages.
    """

    kind: Literal["text", "image"]
    value: str
    place: str


def read_items(value: object, key: str, kind: str | None = None) -> list[Item]:
    """One input or a list of them, which stand at ``key``.

    Args:
        kind: what a bare string is, where the request says so; else a text, or a picture where it
            is a data URI.

    Raises:
        Refusal: 422, naming the place.
    """
    if isinstance(value, str | dict):
        return [read_item(value, f"{key}[0]", kind)]
    if not isinstance(value, list) or not value:
        raise Refusal(422, "invalid", f"{key}: {shown(value)}; allowed: {_ALLOWED}, or a list")
    if is_token_ids(value):
        raise token_ids(key)
    return [read_item(one, f"{key}[{index}]", kind) for index, one in enumerate(value)]


def read_item(value: object, place: str, kind: str | None = None, *, part: bool = False) -> Item:
    """One input.

    Args:
        part: of a message, so that it holds no other.

    Raises:
        Refusal: 422, naming the place.
    """
    if isinstance(value, str):
        return _read_string(value, place, kind)
    if isinstance(value, dict):
        match value:
            case {"text": str(text), **rest} if rest in ({}, {"type": "text"}):
                return _text(text, f"{place}.text")
            case {"image": str(image), **rest} if rest in ({}, {"type": "image"}):
                return Item("image", image, f"{place}.image")
            case {"type": "image_url", "image_url": dict(inner), **rest} if not rest:
                url, detail = inner.get("url"), set(inner) - {"url", "detail"}
                if isinstance(url, str) and not detail:
                    return Item("image", url, f"{place}.image_url.url")
            case {"type": "image_url", "image_url": str(url), **rest} if not rest:
                return Item("image", url, f"{place}.image_url")
            case {"content": _, **rest} if not rest and not part:
                return read_message(value, place)
    raise Refusal(422, "invalid", f"{place}: {shown(value)}; allowed: {_ALLOWED}")


def read_message(value: object, place: str) -> Item:
    """The one part of a message.

    Raises:
        Refusal: 422, where it has none, or several: the model joins no text with a picture.
    """
    content = value.get("content") if isinstance(value, dict) else None
    if isinstance(content, str):
        return _text(content, f"{place}.content")
    if not isinstance(content, list) or len(content) != 1:
        found = f"{len(content)} parts" if isinstance(content, list) else shown(value)
        raise Refusal(
            422,
            "invalid",
            f"{place}.content: {found}; allowed: one, a text or a picture, since the model embeds "
            "each for itself",
        )
    return read_item(content[0], f"{place}.content[0]", part=True)


def _read_string(value: str, place: str, kind: str | None) -> Item:
    if kind == "image" or (kind is None and value.startswith("data:")):
        return Item("image", value, place)
    if kind is None and len(value) <= MAX_TEXT and is_url(value):
        raise Refusal(
            422,
            "url_refused",
            f'{place}: {value.strip():.80}: an address; send {{"image": ...}} with an image\'s '
            'bytes as data:image/...;base64, or {"text": ...} to embed the address itself; URLs '
            "are fetched only from hosts in PTFT_URL_HOSTS",
        )
    return _text(value, place)


def _text(value: str, place: str) -> Item:
    if len(value) > MAX_TEXT:
        what = f"{place}: {len(value)} characters; allowed: at most {MAX_TEXT}"
        raise Refusal(422, "invalid", what)
    return Item("text", value, place)


def count_pictures(items: Sequence[Item]) -> int:
    """How many of the inputs are pictures."""
    return sum(item.kind == "image" for item in items)


async def encode_items(asked: Asked, items: Sequence[Item], key: str) -> Embeddings:
    """Inputs to embeddings (D,), in their order; a picture that fails fails alone.

    Args:
        key: of the list, for messages.

    Raises:
        Refusal: 413 or 429, see ``Ticket.charge``; 422 for a URL that is not fetched. How many
            there may be was held to where the body was read.
    """
    texts = [item.value for item in items if item.kind == "text"]
    if texts:
        refuse_texts(asked.encoder.model.info)
    images = [item for item in items if item.kind == "image"]
    check_characters(texts, asked.settings, key)
    pictures = await read_strings(
        asked, [item.value for item in images], [item.place for item in images]
    )
    asked.watch()
    await _charge(asked, texts, pictures)
    found_texts = iter(await _encode_texts(asked, texts))
    found_images = iter(await _encode_pictures(asked, pictures))
    return [next(found_texts if item.kind == "text" else found_images) for item in items]


async def _charge(
    asked: Asked, texts: Sequence[str], pictures: Sequence[Picture | SampleError]
) -> None:
    """All at once; what does not fit into a batch waits for its turn as a list."""
    cost = asked.encoder.cost_of_pictures(pictures)
    if texts:
        lengths = [len(text) for text in texts]
        cost += asked.encoder.cost_of_texts(len(texts), sum(lengths), max(lengths))
    count = max(len(texts), len(pictures))
    if count > asked.settings.max_batch:
        asked.allow_list()
        await asked.ticket.enter_list(cost)
    else:
        asked.ticket.charge(replace(cost, items=count))


async def _encode_texts(asked: Asked, texts: Sequence[str]) -> list[NDArray[np.float32]]:
    found: list[NDArray[np.float32]] = []
    size = asked.settings.max_batch
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        found += await asked.encoder.encode_texts(asked.ticket, part, keep=True)
    if texts:
        asked.metrics.observe_items("text", len(texts), 0)
        asked.drift.observe("text", found)
    return found


async def _encode_pictures(
    asked: Asked, pictures: Sequence[Picture | SampleError]
) -> list[NDArray[np.float32] | SampleError]:
    found: list[NDArray[np.float32] | SampleError] = []
    size = asked.settings.max_batch
    for start in range(0, len(pictures), size):
        part = pictures[start : start + size]
        found += await asked.encoder.encode_pictures(asked.ticket, part, keep=True)
    if pictures:
        failed = sum(isinstance(one, SampleError) for one in found)
        asked.metrics.observe_items("image", len(found) - failed, failed)
        asked.drift.observe("image", found)
    return found
