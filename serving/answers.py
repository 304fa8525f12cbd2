"""What the routes share: charging and encoding a request's items, and writing their embeddings."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from ptft.artifact import ModelInfo
from ptft.errors import SampleError
from serving.admission import Cost
from serving.asked import Asked
from serving.inputs import check_characters, too_many
from serving.pictures import Picture
from serving.refusal import Refusal
from serving.state import json_bytes

__all__ = [
    "BYTES_A_VALUE",
    "Embeddings",
    "charge_texts",
    "encode_pictures",
    "encode_texts",
    "failure",
    "refuse_texts",
    "status_of",
    "write",
    "write_embedding",
]

BYTES_A_VALUE = 12
"""Of a number in JSON."""

Embeddings = Sequence[NDArray[np.float32] | SampleError]


async def encode_pictures(
    asked: Asked,
    pictures: Sequence[Picture | SampleError],
    readable: asyncio.Event | None = None,
) -> Embeddings:
    """Pictures to embeddings (D,), charged to the request; one that fails fails alone.

    Args:
        readable: set when the first is decoded.

    Raises:
        Refusal: 413 or 429, see ``Ticket.charge``.
    """
    too_many(len(pictures), asked.settings)
    asked.ticket.charge(asked.encoder.cost_of_pictures(pictures))
    asked.watch()
    found = await asked.encoder.encode_pictures(asked.ticket, pictures, readable, keep=True)
    failed = sum(isinstance(one, SampleError) for one in found)
    asked.metrics.observe_items("image", len(found) - failed, failed)
    asked.drift.observe("image", found)
    return found


async def encode_texts(asked: Asked, texts: Sequence[str]) -> Embeddings:
    """Texts to embeddings (D,), charged to the request.

    Raises:
        Refusal: 413 or 429, see ``Ticket.charge``; 422, see :func:`refuse_texts`.
    """
    refuse_texts(asked.encoder.model.info)
    charge_texts(asked, texts)
    asked.watch()
    found = await asked.encoder.encode_texts(asked.ticket, texts, keep=True)
    asked.metrics.observe_items("text", len(found), 0)
    asked.drift.observe("text", found)
    return found


def refuse_texts(info: ModelInfo) -> None:
    """Refuse to embed a text with a model whose texts were measured, and say nothing of a picture.

    Raises:
        Refusal: 422, with what was measured.
    """
    if info.texts == "refused":
        raise Refusal(
            422,
            "texts_refused",
            f"{info.name} answers no texts: {info.texts_reason}; allowed: pictures, to embed"
            + " or for its own classes" * bool(info.classes),
        )


def charge_texts(asked: Asked, texts: Sequence[str]) -> None:
    """Charge texts to the request."""
    too_many(len(texts), asked.settings)
    check_characters(texts, asked.settings)
    lengths = [len(text) for text in texts]
    cost = asked.encoder.cost_of_texts(len(texts), sum(lengths), max(lengths))
    asked.ticket.charge(cost + Cost(items=len(texts)))


def write(
    asked: Asked, key: str, rows: Sequence[dict[str, Any]], status: int, **content: Any
) -> Response:
    """An answer that names the model, with a row an item; row by row, since no thread else runs
    while one is written."""
    info = asked.encoder.model.info
    asked.ticket.phases.enter("write")  # until the request is over
    head = json_bytes({"model": info.name, "digest": info.digest, **content})
    body = b",".join(map(json_bytes, rows))
    parts = (head[:-1], b',"', key.encode(), b'":[', body, b"]}")
    return Response(b"".join(parts), status, media_type="application/json")


def write_embedding(embedding: NDArray[np.float32], encoding: str) -> NDArray[np.float32] | str:
    """An embedding as JSON has it: ``float``, or ``base64`` of little-endian float32."""
    if encoding == "base64":
        return base64.b64encode(embedding.astype("<f4").tobytes()).decode()
    return np.ascontiguousarray(embedding)


def status_of(found: Embeddings) -> int:
    """200 while one item succeeded."""
    return 422 if all(isinstance(one, SampleError) for one in found) else 200


def failure(error: SampleError) -> dict[str, str]:
    """Why an item has no answer."""
    return {"type": "unreadable", "message": str(error)}
