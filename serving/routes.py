"""The HTTP interface: what each route is asked and answers.

An item that fails fails alone: its place in the answer says why, and the status is 200 as long as
one succeeded, 422 when none did. Every answer names the digest of the model that gave it.
"""

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from ptft.artifact import ModelInfo
from ptft.errors import SampleError
from serving import schema
from serving.inputs import decode_base64, is_url, read_images, read_json_body, too_many
from serving.refusal import Refusal
from serving.settings import Settings
from serving.state import Asked, State, json_response

__all__ = ["create_app", "write_embedding"]

Embeddings = Sequence[NDArray[np.float32] | SampleError]

_FAILURE = {"type": "object", "properties": {"error": schema.Failure.model_json_schema()}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _FAILURE}}}
    for status, text in {
        413: "the body, an image or the number of items is beyond its cap",
        415: "a content type that the route does not read",
        422: "a key or value is wrong, or every item failed",
        429: "too much is being answered; Retry-After says when to ask again",
        503: "the model is not loaded yet",
        504: "no answer before the deadline",
    }.items()
}


def create_app(read_settings: Callable[[], Settings]) -> FastAPI:
    """The ASGI app.

    Args:
        read_settings: called when the app starts, not when it is imported: ``bentoml build``
            imports it too.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = app.state.serving = State(read_settings())
        await state.start()
        yield
        await state.stop()

    app = FastAPI(
        title="ptft",
        description=__doc__,
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        responses=_REFUSALS,
    )

    async def embed_image(request: Request) -> Response:
        """Images to embeddings: multipart files, one raw image, or JSON with base64."""
        return await _state(request).answer("embed_image", request, _embed_image)

    async def embed_text(request: Request) -> Response:
        """Texts to embeddings."""
        return await _state(request).answer("embed_text", request, _embed_text)

    async def classify(request: Request) -> Response:
        """Images, texts or both to the classes of the model, or zero-shot to labels of your own."""
        return await _state(request).answer("classify", request, _classify)

    async def embeddings(request: Request) -> Response:
        """OpenAI's embeddings: texts, and images as data:image/...;base64 URIs."""
        return await _state(request).answer("embeddings", request, _openai)

    async def model(request: Request) -> Response:
        """What is served, and what it came from."""
        return await _state(request).answer("model", request, _model)

    async def metrics(request: Request) -> Response:
        return Response(_state(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def add(path: str, endpoint: Any, answer: type, body: dict[str, Any] | None) -> None:
        extra = {"requestBody": {"required": True, "content": body}} if body else None
        app.add_api_route(
            path,
            endpoint,
            methods=["POST" if body else "GET"],
            openapi_extra=extra,
            responses={200: {"model": answer}},
        )

    add("/v1/embed/image", embed_image, schema.Embedded, _image_body(schema.EmbedImages))
    add("/v1/embed/text", embed_text, schema.Embedded, _json_body(schema.EmbedTexts))
    add("/v1/classify", classify, schema.Classes, _image_body(schema.ClassifyInputs))
    add("/v1/embeddings", embeddings, schema.OpenAIEmbedded, _json_body(schema.OpenAIEmbeddings))
    add("/v1/model", model, schema.ServedModel, None)
    app.add_api_route("/metrics", metrics, include_in_schema=False)
    return app


async def _embed_image(asked: Asked) -> Response:
    items, options = await read_images(
        asked.request, asked.settings, body=schema.EmbedImages, options=schema.EmbedOptions
    )
    found = await _encode_images(asked, items)
    return _embedded(asked.encoder.model.info, found, options.encoding_format)


async def _embed_text(asked: Asked) -> Response:
    body = await read_json_body(asked.request, asked.settings, schema.EmbedTexts)
    found = await _encode_texts(asked, body.texts)
    return _embedded(asked.encoder.model.info, found, body.encoding_format)


async def _classify(asked: Asked) -> Response:
    model = asked.encoder.model
    info = model.info
    items, options = await read_images(
        asked.request,
        asked.settings,
        body=schema.ClassifyInputs,
        options=schema.ClassifyOptions,
        required=info.reads == "image",
    )
    texts = options.texts or []
    _check_read(info, len(items), len(texts))
    labels = options.labels or info.classes
    templates = options.templates or info.templates or ["{}"]
    if not labels:
        raise Refusal(422, "no_labels", f"{info.name} has no classes of its own; send labels")
    zero_shot = options.labels is not None or options.templates is not None or not model.has_head
    class_cd = None
    if zero_shot:
        cap = asked.settings.max_prompts
        too_many(len(labels) * len(templates), asked.settings, cap, "labels times templates")
        class_cd = await asked.encoder.encode_labels(labels, templates)
    found = await _encode_inputs(asked, items, texts)
    results: list[dict[str, Any]] = []
    for index, one in enumerate(found):
        if isinstance(one, SampleError):
            results.append({"index": index, "error": _failure(one)})
            continue
        if class_cd is None:
            probabilities = model.head_probabilities(one[None])[0]
        else:
            probabilities = model.zero_shot_probabilities(one[None], class_cd)[0]
        best = np.argsort(-probabilities, kind="stable")[: options.top_k]
        classes = [{"label": labels[c], "probability": float(probabilities[c])} for c in best]
        results.append({"index": index, "classes": classes})
    content = {"model": info.name, "digest": info.digest, "results": results}
    return json_response(content, _status(found))


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


async def _encode_inputs(
    asked: Asked, items: list[bytes | SampleError], texts: list[str]
) -> Embeddings:
    """What the model's head reads of each item; an item whose image fails fails alone."""
    too_many(len(texts), asked.settings)
    asked.slots.hold(len(items) + len(texts))
    images = await _encode_images(asked, items) if items else [None] * len(texts)
    written = await _encode_texts(asked, texts) if texts else [None] * len(items)
    found: list[NDArray[np.float32] | SampleError] = []
    for image, text in zip(images, written, strict=True):
        if isinstance(image, SampleError):
            found.append(image)
            continue
        assert not isinstance(text, SampleError), "texts do not fail"
        rows = (None if one is None else one[None] for one in (image, text))
        found.append(asked.encoder.model.head_input(*rows)[0])
    return found


async def _openai(asked: Asked) -> Response:
    body = await read_json_body(asked.request, asked.settings, schema.OpenAIEmbeddings)
    info = asked.encoder.model.info
    if body.model not in (None, info.name, info.digest):
        raise Refusal(404, "model_not_found", f"model: {body.model!r}; allowed: {info.name!r}")
    if body.dimensions not in (None, info.embed_dim):
        raise Refusal(422, "invalid", f"dimensions: {body.dimensions}; allowed: {info.embed_dim}")
    inputs = [body.input] if isinstance(body.input, str) else body.input
    too_many(len(inputs), asked.settings)
    images: dict[int, bytes | SampleError] = {}
    texts: dict[int, str] = {}
    for index, item in enumerate(inputs):
        _sort(item, index, images, texts)
    asked.slots.hold(len(inputs))
    found: dict[int, NDArray[np.float32] | SampleError] = {}
    if texts:
        found |= zip(texts, await _encode_texts(asked, list(texts.values())), strict=True)
    if images:
        found |= zip(images, await _encode_images(asked, list(images.values())), strict=True)
    data = []
    for index in range(len(inputs)):
        one = found[index]
        if isinstance(one, SampleError):  # a null embedding is what OpenAI's clients can pass over
            error = {"object": "error", "index": index, "embedding": None, "error": _failure(one)}
            data.append(error)
        else:
            written = write_embedding(one, body.encoding_format)
            data.append({"object": "embedding", "index": index, "embedding": written})
    content = {
        "object": "list",
        "data": data,
        "model": info.name,
        "digest": info.digest,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
    return json_response(content, _status(list(found.values())))


async def _model(asked: Asked) -> Response:
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
        "classes": info.classes,
        "templates": info.templates,
        "weights_digest": info.weights_digest,
        "recipe_digest": info.recipe_digest,
        "versions": info.versions,
    }
    return json_response(content)


async def _encode_images(asked: Asked, items: list[bytes | SampleError]) -> Embeddings:
    asked.slots.hold(len(items))
    found = await asked.encoder.encode_images(items)
    failed = sum(isinstance(one, SampleError) for one in found)
    asked.metrics.observe_items("image", len(found) - failed, failed)
    return found


async def _encode_texts(asked: Asked, texts: list[str]) -> Embeddings:
    too_many(len(texts), asked.settings)
    asked.slots.hold(len(texts))
    found = await asked.encoder.encode_texts(texts)
    asked.metrics.observe_items("text", len(found), 0)
    return found


def _sort(
    item: str | schema.TextInput | schema.ImageInput,
    index: int,
    images: dict[int, bytes | SampleError],
    texts: dict[int, str],
) -> None:
    """Put an input of OpenAI's form where it belongs."""
    name = f"input[{index}]"
    if isinstance(item, schema.ImageInput):
        images[index] = decode_base64(item.image, name)
    elif isinstance(item, schema.TextInput):
        texts[index] = item.text
    elif item.startswith("data:"):
        images[index] = decode_base64(item, name)
    elif is_url(item):
        raise Refusal(
            422,
            "url_refused",
            f"{name}: {item.strip():.80}: URLs are never fetched; send an image's bytes as "
            'data:image/...;base64, or {"text": ...} to embed the address itself',
        )
    elif len(item) > schema.MAX_TEXT:
        raise Refusal(
            422, "invalid", f"{name}: {len(item)} characters; allowed: at most {schema.MAX_TEXT}"
        )
    else:
        texts[index] = item


def _embedded(info: ModelInfo, found: Embeddings, encoding: str) -> Response:
    results = [
        {"index": index, "error": _failure(one)}
        if isinstance(one, SampleError)
        else {"index": index, "embedding": write_embedding(one, encoding)}
        for index, one in enumerate(found)
    ]
    content = {"model": info.name, "digest": info.digest, "dim": info.embed_dim}
    return json_response({**content, "results": results}, _status(found))


def write_embedding(embedding: NDArray[np.float32], encoding: str) -> NDArray[np.float32] | str:
    """An embedding (D,) as a response has it: numbers, or base64 of little-endian float32."""
    if encoding == "base64":
        return base64.b64encode(embedding.astype("<f4").tobytes()).decode()
    return np.ascontiguousarray(embedding)


def _status(found: Embeddings) -> int:
    return 422 if all(isinstance(one, SampleError) for one in found) else 200


def _failure(error: SampleError) -> dict[str, str]:
    return {"type": "unreadable", "message": str(error)}


def _state(request: Request) -> State:
    state: State = request.app.state.serving
    return state


def _json_body(model: type[Any]) -> dict[str, Any]:
    return {"application/json": {"schema": model.model_json_schema()}}


def _image_body(model: type[Any]) -> dict[str, Any]:
    options = model.model_json_schema()["properties"]
    file = {"type": "string", "format": "binary"}
    form = {**options, "images": {"type": "array", "items": file}}
    return {
        **_json_body(model),
        "multipart/form-data": {"schema": {"type": "object", "properties": form}},
        "image/*": {"schema": file},
    }
