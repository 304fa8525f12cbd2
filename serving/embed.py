"""``/v1/embed/image``, ``/v1/embed/text`` and ``/v1/model``."""

from starlette.responses import Response

from ptft.errors import SampleError
from serving import schema
from serving.answers import (
    BYTES_A_VALUE,
    Embeddings,
    encode_pictures,
    encode_texts,
    failure,
    status_of,
    write,
    write_embedding,
)
from serving.asked import Asked
from serving.inputs import read_images, read_json_body
from serving.state import json_bytes

__all__ = ["embed_image", "embed_text", "served_model"]


async def embed_image(asked: Asked) -> Response:
    """Answer a request."""
    pictures, options = await read_images(
        asked, body=schema.EmbedImages, options=schema.EmbedOptions
    )
    found = await encode_pictures(asked, pictures)
    return await _embedded(asked, found, options.encoding_format)


async def embed_text(asked: Asked) -> Response:
    """Answer a request."""
    body = await read_json_body(asked, schema.EmbedTexts)
    found = await encode_texts(asked, body.texts)
    return await _embedded(asked, found, body.encoding_format)


async def _embedded(asked: Asked, found: Embeddings, encoding: str) -> Response:
    size = len(found) * asked.encoder.model.info.embed_dim * BYTES_A_VALUE
    return await asked.apart(size, _write_embedded, asked, found, encoding)


def _write_embedded(asked: Asked, found: Embeddings, encoding: str) -> Response:
    results = [
        {"index": index, "error": failure(one)}
        if isinstance(one, SampleError)
        else {"index": index, "embedding": write_embedding(one, encoding)}
        for index, one in enumerate(found)
    ]
    dim = asked.encoder.model.info.embed_dim
    return write(asked, "results", results, status_of(found), dim=dim)


async def served_model(asked: Asked) -> Response:
    """What is served, and what it came from."""
    info = asked.encoder.model.info
    content = {
        "model": info.name,
        "digest": info.digest,
        "task": info.task,
        "dim": info.embed_dim,
        "context_length": info.context_length,
        "image_size": list(info.image_size),
        "precision": asked.encoder.model.precision,
        "reads": info.reads,
        "texts": info.texts,
        "texts_reason": info.texts_reason,
        "classes": info.classes,
        "thresholds": info.thresholds,
        "nms": info.nms,
        "counts": asked.encoder.model.counting is not None,
        "templates": info.templates,
        "weights_digest": info.weights_digest,
        "recipe_digest": info.recipe_digest,
        "versions": info.versions,
    }
    return Response(json_bytes(content), media_type="application/json")
