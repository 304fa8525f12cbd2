"""``/v1/embeddings``: OpenAI's, with pictures as data URIs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from ptft.errors import SampleError
from serving import schema
from serving.answers import (
    BYTES_A_VALUE,
    encode_pictures,
    encode_texts,
    failure,
    status_of,
    write,
    write_embedding,
)
from serving.asked import Asked
from serving.inputs import is_url, read_json_body, read_strings, too_many
from serving.pictures import Picture
from serving.refusal import Refusal

__all__ = ["embeddings"]


async def embeddings(asked: Asked) -> Response:
    """Answer a request."""
    body = await read_json_body(asked, schema.OpenAIEmbeddings)
    info = asked.encoder.model.info
    if body.model not in (None, info.name, info.digest):
        raise Refusal(404, "model_not_found", f"model: {body.model!r}; allowed: {info.name!r}")
    if body.dimensions not in (None, info.embed_dim):
        raise Refusal(422, "invalid", f"dimensions: {body.dimensions}; allowed: {info.embed_dim}")
    inputs = [body.input] if isinstance(body.input, str) else body.input
    too_many(len(inputs), asked.settings)
    images: dict[int, str] = {}
    texts: dict[int, str] = {}
    for index, item in enumerate(inputs):
        _sort(item, index, images, texts)
    pictures = await _read(asked, images)
    found: dict[int, NDArray[np.float32] | SampleError] = {}
    if texts:
        found |= zip(texts, await encode_texts(asked, list(texts.values())), strict=True)
    if pictures:
        found |= zip(images, await encode_pictures(asked, pictures), strict=True)
    data: list[dict[str, Any]] = []
    for index in range(len(inputs)):
        one = found[index]
        if isinstance(one, SampleError):  # a null embedding is what OpenAI's clients can pass over
            error = {"object": "error", "index": index, "embedding": None, "error": failure(one)}
            data.append(error)
        else:
            written = write_embedding(one, body.encoding_format)
            data.append({"object": "embedding", "index": index, "embedding": written})
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    status = status_of(list(found.values()))
    size = len(inputs) * info.embed_dim * BYTES_A_VALUE
    return await asked.apart(size, _write, asked, data, status, usage)


def _write(
    asked: Asked, data: list[dict[str, Any]], status: int, usage: dict[str, int]
) -> Response:
    return write(asked, "data", data, status, object="list", usage=usage)


async def _read(asked: Asked, images: dict[int, str]) -> list[Picture | SampleError]:
    size = sum(map(len, images.values()))
    places = [f"input[{index}]" for index in images]
    return await asked.apart(size, read_strings, asked, list(images.values()), places)


def _sort(
    item: str | schema.TextInput | schema.ImageInput,
    index: int,
    images: dict[int, str],
    texts: dict[int, str],
) -> None:
    """Put an input of OpenAI's form where it belongs."""
    name = f"input[{index}]"
    if isinstance(item, schema.ImageInput):
        images[index] = item.image
    elif isinstance(item, schema.TextInput):
        texts[index] = item.text
    elif item.startswith("data:"):
        images[index] = item
    elif len(item) > schema.MAX_TEXT:
        raise Refusal(
            422, "invalid", f"{name}: {len(item)} characters; allowed: at most {schema.MAX_TEXT}"
        )
    elif is_url(item):
        raise Refusal(
            422,
            "url_refused",
            f"{name}: {item.strip():.80}: URLs are never fetched; send an image's bytes as "
            'data:image/...;base64, or {"text": ...} to embed the address itself',
        )
    else:
        texts[index] = item
