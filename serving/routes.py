"""The HTTP interface: what each route is asked and answers.

An item that fails fails alone: its place in the answer says why, and the status is 200 as long as
one succeeded, 422 when none did. Every answer names the digest of the model that gave it, and every
refusal has one shape, see ``serving.refusal``.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
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
from serving.classify import classify
from serving.frame import Cors, Frame, Guarded
from serving.inputs import read_images, read_json_body
from serving.openai import embeddings
from serving.refusal import Refusal
from serving.settings import Settings
from serving.state import State, json_bytes, refuse

__all__ = ["create_app"]

_FAILURE = {"type": "object", "properties": {"error": schema.Failure.model_json_schema()}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _FAILURE}}}
    for status, text in {
        401: "no API key, or one that nobody has here, where the service asks for one",
        403: "an API key that is over",
        408: "the body did not come",
        413: "the body, an image or the number of items is beyond its cap",
        415: "a content type that the route does not read",
        422: "a key or value is wrong, or every item failed",
        429: "too much at once, in all or with this key; Retry-After says when to ask again",
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

    # Over 60 lines: every route with the sentence that the OpenAPI document has of it.

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, State]]:
        state = app.state.serving = State(read_settings())
        await state.start()
        yield {"serving": state}  # for serving.protocol
        await state.stop()

    app = FastAPI(
        title="ptft",
        description=__doc__,
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        responses=_REFUSALS,
        exception_handlers={HTTPException: _no_such_route},
    )
    for around in (Guarded, Cors, Frame):  # the last is the outermost
        app.add_middleware(around, state=lambda: app.state.serving)

    async def embed_image(request: Request) -> Response:
        """Images to embeddings: multipart files, one raw image, or JSON with base64."""
        return await _state(request).answer("embed_image", request, _embed_image)

    async def embed_text(request: Request) -> Response:
        """Texts to embeddings."""
        return await _state(request).answer("embed_text", request, _embed_text)

    async def classify_(request: Request) -> Response:
        """Images, texts or both to the classes of the model, or zero-shot to labels of your own."""
        return await _state(request).answer("classify", request, classify)

    async def embeddings_(request: Request) -> Response:
        """OpenAI's embeddings: texts, and images as data:image/...;base64 URIs."""
        return await _state(request).answer("embeddings", request, embeddings)

    async def model(request: Request) -> Response:
        """What is served, and what it came from."""
        return await _state(request).answer("model", request, _model)

    def add(path: str, endpoint: Any, answer: type, body: dict[str, Any] | None) -> None:
        extra = {"requestBody": {"required": True, "content": body}} if body else None
        app.add_api_route(
            path,
            endpoint,
            methods=["POST" if body else "GET"],
            openapi_extra=extra,
            responses={200: {"model": answer}},
        )
        if not body:
            app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)

    add("/v1/embed/image", embed_image, schema.Embedded, _image_body(schema.EmbedImages))
    add("/v1/embed/text", embed_text, schema.Embedded, _json_body(schema.EmbedTexts))
    add("/v1/classify", classify_, schema.Classes, _image_body(schema.ClassifyInputs))
    add("/v1/embeddings", embeddings_, schema.OpenAIEmbedded, _json_body(schema.OpenAIEmbeddings))
    add("/v1/model", model, schema.ServedModel, None)
    for path, endpoint in (("/metrics", _metrics), ("/livez", _livez), ("/readyz", _readyz)):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/healthz", _livez, methods=["GET", "HEAD"], include_in_schema=False)
    return app


async def _metrics(request: Request) -> Response:
    if _state(request).settings.metrics == "off":
        return refuse(request, Refusal(404, "no_such_path", "/metrics: off (PTFT_METRICS)"))
    text, content_type = _state(request).scrape(request.headers.get("accept", ""))
    return Response(text, headers={"content-type": content_type})


async def _livez(request: Request) -> Response:
    if reason := _state(request).health.reason_not_alive():
        return refuse(request, Refusal(503, "not_alive", reason))
    return Response(b"\n", media_type="text/plain")


async def _readyz(request: Request) -> Response:
    state = _state(request)
    reason = "draining" if state.drain.started else await state.health.reason_not_ready()
    if reason:
        return refuse(request, Refusal(503, "not_ready", reason, retry_after=1))
    return Response(b"\n", media_type="text/plain")


async def _no_such_route(request: Request, error: Exception) -> Response:
    """404 and 405, and whatever else the framework says by itself."""
    assert isinstance(error, HTTPException)
    path = f"{request.url.path:.200}"
    if error.status_code == 404:
        return refuse(request, Refusal(404, "no_such_path", f"{path}: no such path; see /docs"))
    allowed = (error.headers or {}).get("Allow", "")
    if error.status_code == 405:
        what = f"{request.method} {path}: allowed: {allowed}"
        return refuse(request, Refusal(405, "method", what, allow=allowed))
    return refuse(request, Refusal(error.status_code, "http", str(error.detail)))


async def _embed_image(asked: Asked) -> Response:
    pictures, options = await read_images(
        asked, body=schema.EmbedImages, options=schema.EmbedOptions
    )
    found = await encode_pictures(asked, pictures)
    return await _embedded(asked, found, options.encoding_format)


async def _embed_text(asked: Asked) -> Response:
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
    return Response(json_bytes(content), media_type="application/json")


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
