"""``/v1/embeddings`` and ``/v1/models``: OpenAI's, with pictures as other servers take them."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from ptft.artifact import ModelInfo
from ptft.errors import SampleError, suggest
from serving import schema_clients as schema
from serving.answers import (
    BYTES_A_VALUE,
    Embeddings,
    failure,
    status_of,
    write,
    write_embedding,
)
from serving.asked import Asked
from serving.inputs import read_json_body
from serving.items import encode_items
from serving.other_model import check_digest, is_digest
from serving.refusal import Refusal, no_such_path
from serving.settings import Settings
from serving.state import json_bytes

__all__ = [
    "check_model",
    "cut",
    "cut_dimensions",
    "embeddings",
    "list_models",
    "one_model",
    "usage",
]

_BEGAN = int(time.time())
_UNNAMED = ("default/not-specified",)  # Infinity's client where no model was named


async def embeddings(asked: Asked) -> Response:
    """Answer a request."""
    body = await read_json_body(asked, schema.OpenAIEmbeddings)
    check_model(asked, body.model)
    dim = cut_dimensions(asked, body.dimensions, "dimensions")
    found = await encode_items(asked, body.items, "messages" if body.messages else "input")
    size = len(found) * asked.encoder.model.info.embed_dim * BYTES_A_VALUE
    return await asked.apart(size, _write, asked, found, dim, body.encoding)


def _write(asked: Asked, found: Embeddings, dim: int, encoding: str) -> Response:
    data: list[dict[str, Any]] = []
    for index, one in enumerate(found):
        if isinstance(one, SampleError):  # a null embedding is what OpenAI's clients can pass over
            error = {"object": "error", "index": index, "embedding": None, "error": failure(one)}
            data.append(error)
        else:
            written = write_embedding(cut(one, dim), encoding)
            data.append({"object": "embedding", "index": index, "embedding": written})
    return write(asked, "data", data, status_of(found), object="list", usage=usage(asked))


def usage(asked: Asked) -> dict[str, int]:
    """The tokens that the request's texts were; pictures have none."""
    return {"prompt_tokens": asked.ticket.tokens, "total_tokens": asked.ticket.tokens}


def check_model(asked: Asked, name: str | None, key: str = "model") -> None:
    """Refuse a name that is not the model's, nor one of its aliases.

    Raises:
        Refusal: 404, naming the key; 421 for the digest of another model.
    """
    info = asked.encoder.model.info
    if name is not None and is_digest(name):
        check_digest(asked.encoder, name, key)
    if name is not None and name not in (*_names(info, asked.settings), info.digest, *_UNNAMED):
        near = suggest(name, _names(info, asked.settings))
        raise Refusal(404, "model_not_found", f"{key}: {name[:80]!r}; {near} (PTFT_ALIASES)")


def cut_dimensions(asked: Asked, wanted: int | None, key: str) -> int:
    """How many of an embedding's dimensions are asked for: all, or as many as may be kept.

    Raises:
        Refusal: 422, naming the key.
    """
    info = asked.encoder.model.info
    allowed = sorted({*info.matryoshka, *asked.settings.dimensions, info.embed_dim})
    if wanted in (None, 0):  # 0: Infinity's client where none was given
        return info.embed_dim
    if wanted not in allowed:
        named = ", ".join(map(str, allowed))
        raise Refusal(422, "invalid", f"{key}: {wanted}; allowed: {named} (PTFT_DIMENSIONS)")
    return int(wanted)


def cut(embedding: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """The first dimensions of an embedding (D,), again of length 1."""
    if dim == len(embedding):
        return embedding
    kept = embedding[:dim]
    return kept / max(float(np.linalg.norm(kept)), 1e-12)


async def list_models(asked: Asked) -> Response:
    """``GET /v1/models``."""
    info = asked.encoder.model.info
    owner = "infinity" if asked.request.url.path == "/models" else "ptft"  # its client's only one
    data = [{**_described(info, name), "owned_by": owner} for name in _names(info, asked.settings)]
    return Response(json_bytes({"object": "list", "data": data}), media_type="application/json")


async def one_model(asked: Asked) -> Response:
    """``GET /v1/models/NAME``."""
    name = str(asked.request.path_params["name"])
    if not name or name.endswith("/"):
        raise no_such_path(asked.request.url.path)
    check_model(asked, name)
    described = _described(asked.encoder.model.info, name)
    return Response(json_bytes(described), media_type="application/json")


def _names(info: ModelInfo, settings: Settings) -> tuple[str, ...]:
    return tuple(dict.fromkeys((info.name, *settings.aliases)))


def _described(info: ModelInfo, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": _BEGAN,
        "owned_by": "ptft",
        "digest": info.digest,
        "stats": {},  # Infinity's client reads it
    }
