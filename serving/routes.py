"""The HTTP interface: what each route is asked and answers.

An item that fails fails alone: its place in the answer says why, and the status is 200 as long as
one succeeded, 422 when none did. Every answer names the digest of the model that gave it, and every
refusal has one shape, see ``serving.refusal``.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving import client_answers as answers
from serving import schema
from serving import schema_clients as clients
from serving.about import About, GoldenCheck, GoldenHeld, about, drift, golden
from serving.classify import classify
from serving.cohere import cohere_embed
from serving.detect import detect
from serving.document import Route, describe
from serving.drift import Movement
from serving.embed import embed_image, embed_text, served_model
from serving.frame import App, Cors, Direct, Guarded, HttpFrame
from serving.immich import predict
from serving.mirror import Mirrored
from serving.openai import embeddings, list_models, one_model
from serving.page import page
from serving.rank import rerank, similarity
from serving.reference import POLICY, reference_page
from serving.refusal import Refusal, no_such_path
from serving.search import search
from serving.settings import Settings
from serving.state import State, json_bytes, refuse

__all__ = ["create_app"]


def create_app(read_settings: Callable[[], Settings]) -> FastAPI:
    """The ASGI app.

    Args:
        read_settings: called when the app starts, not when it is imported: ``bentoml build``
            imports it too.
    """

    # Over 60 lines: every route with the sentence that the OpenAPI document has of it.

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, State]]:
        state = app.serving = app.state.serving = State(read_settings())
        await state.start()
        yield {"serving": state}  # for serving.protocol
        await state.stop()

    app = App(
        title="ptft",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load their program from a CDN
        redoc_url=None,
        redirect_slashes=False,  # to an address made of the Host header, and by http behind TLS
        exception_handlers={HTTPException: _no_such_route},
    )
    posts = {path: one for one in ROUTES if one.method == "POST" for path in (one.path, *one.also)}
    serving = partial(getattr, app, "serving")
    app.outermost = Direct(app.outermost, serving, posts)
    app.outermost = Mirrored(app.outermost, lambda: app.serving.mirror, frozenset(posts))
    for around in (Guarded, Cors, HttpFrame):
        app.outermost = around(app.outermost, serving)
    app.state.golden_check = GoldenCheck()
    document = describe(ROUTES, "ptft", "1", __doc__ or "")
    app.openapi = lambda: document  # type: ignore[method-assign]
    for route in ROUTES:
        methods = ["POST"] if route.method == "POST" else ["GET", "HEAD"]
        for path in (route.path, *route.also):
            pattern = path.replace("}", ":path}")  # a name may have slashes
            app.add_api_route(pattern, _endpoint(route), methods=methods)
    for path, endpoint in (
        ("/", page),
        ("/docs", _docs),
        ("/metrics", _metrics),
        ("/livez", _livez),
        ("/healthz", _livez),
        ("/readyz", _readyz),
        ("/ping", _ping),
        ("/health", _health),
        ("/v1/health", _health),
    ):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"])
    return app


def _endpoint(route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await _state(request).answer(route.name, request, route.handler)

    return endpoint


async def _docs(request: Request) -> Response:
    page = reference_page(request.app.openapi())
    return Response(page, headers={"content-security-policy": POLICY}, media_type="text/html")


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


async def _ping(request: Request) -> Response:
    """Immich's: whether it is to be asked."""
    ready = await _readyz(request)
    return Response(b"pong", media_type="text/plain") if ready.status_code == 200 else ready


async def _health(request: Request) -> Response:
    """Infinity's and vLLM's, likewise."""
    ready = await _readyz(request)
    if ready.status_code != 200:
        return ready
    return Response(json_bytes({"unix": time.time()}), media_type="application/json")


async def _no_such_route(request: Request, error: Exception) -> Response:
    """404 and 405, and whatever else the framework says by itself."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        return refuse(request, no_such_path(path))
    allowed = (error.headers or {}).get("Allow", "")
    if error.status_code == 405:
        what = f"{request.method} {path:.200}: allowed: {allowed}"
        return refuse(request, Refusal(405, "method", what, allow=allowed))
    return refuse(request, Refusal(error.status_code, "http", str(error.detail)))


def _state(request: Request) -> State:
    state: State = request.app.state.serving
    return state


_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4IScHAAK2AQU0pnWqAAAAAElFTkSuQmCC"
)
_URI = f"data:image/png;base64,{_PIXEL}"

ROUTES = (
    Route(
        "/v1/embed/image",
        "embed_image",
        "Images to embeddings: multipart files, one raw image, or JSON with base64.",
        embed_image,
        schema.Embedded,
        schema.EmbedImages,
        partial=True,
        files="images",
        raw=True,
        examples={"base64": {"images": [_PIXEL]}},
    ),
    Route(
        "/v1/embed/text",
        "embed_text",
        "Texts to embeddings.",
        embed_text,
        schema.Embedded,
        schema.EmbedTexts,
        examples={"texts": {"texts": ["a cat", "a dog"]}},
    ),
    Route(
        "/v1/classify",
        "classify",
        "Images, texts or both to the classes of the model, or zero-shot to labels of your own.",
        classify,
        schema.Classes,
        schema.ClassifyInputs,
        partial=True,
        files="images",
        raw=True,
        examples={
            "zero-shot": {
                "images": [_PIXEL],
                "labels": ["cat", "dog"],
                "templates": ["a photo of a {}"],
            }
        },
    ),
    Route(
        "/v1/detect",
        "detect",
        "Boxes of things in images: the model's classes, labels of your own, or things that look "
        "like an example.",
        detect,
        schema.Detected,
        schema.DetectInputs,
        partial=True,
        files="images",
        more_files=("examples",),
        raw=True,
        examples={
            "labels": {"images": [_PIXEL], "labels": ["cat", "dog"], "threshold": 0.2, "nms": 0.5},
            "example": {"images": [_PIXEL], "examples": [_PIXEL], "most": 10},
        },
    ),
    Route(
        "/v1/similarity",
        "similarity",
        "Images against texts: cosines, and the scores by which the model ranks.",
        similarity,
        answers.Similarities,
        clients.Similarity,
        partial=True,
        files="images",
        examples={"base64": {"images": [_PIXEL], "texts": ["a cat", "a dog"]}},
    ),
    Route(
        "/v1/rerank",
        "rerank",
        "Texts or pictures by their nearness to a query, as Cohere, Jina and Infinity answer.",
        rerank,
        answers.Reranked,
        clients.Rerank,
        partial=True,
        examples={
            "texts": {"query": "a cat", "documents": ["a dog", "a kitten"], "top_n": 1},
            "pictures": {"query": "a cat", "documents": [{"image": _URI}]},
        },
        also=("/v2/rerank", "/rerank"),
    ),
    Route(
        "/v1/search",
        "search",
        "The rows of the mounted index nearest to a text or a picture, every row looked at.",
        search,
        answers.Found,
        clients.Search,
        files="images",
        form=clients.SearchOptions,
        raw=True,
        examples={
            "text": {"query": "a cat", "k": 5},
            "picture": {"query": {"image": _URI}, "thumbnails": True},
        },
    ),
    Route(
        "/v1/embeddings",
        "embeddings",
        "OpenAI's embeddings, with pictures as Infinity, vLLM and Jina take them.",
        embeddings,
        answers.OpenAIEmbedded,
        clients.OpenAIEmbeddings,
        partial=True,
        examples={
            "texts": {"input": ["a cat", "a dog"]},
            "Infinity": {"input": [_URI], "modality": "image"},
            "Jina": {"input": [{"text": "a cat"}, {"image": _PIXEL}]},
            "vLLM": {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": _URI}}],
                    }
                ]
            },
        },
        also=("/embeddings",),
    ),
    Route(
        "/v2/embed",
        "cohere_embed",
        "Cohere's embeddings.",
        cohere_embed,
        answers.CohereEmbedded,
        clients.CohereEmbed,
        examples={
            "texts": {"texts": ["a cat"], "input_type": "search_query"},
            "pictures": {"images": [_URI], "input_type": "image", "embedding_types": ["float"]},
        },
    ),
    Route(
        "/predict",
        "immich_predict",
        "A picture or a text, as the machine-learning container of Immich answers for CLIP.",
        predict,
        answers.ImmichClip,
        files="image",
        form=clients.ImmichForm,
    ),
    Route(
        "/v1/models",
        "list_models",
        "OpenAI's list of models: the one, by its name and its aliases.",
        list_models,
        answers.OpenAIModels,
        also=("/models",),
    ),
    Route(
        "/v1/models/{name}",
        "one_model",
        "One of them.",
        one_model,
        answers.OpenAIModel,
    ),
    Route(
        "/v1/model",
        "model",
        "What is served, and what it came from.",
        served_model,
        schema.ServedModel,
    ),
    Route("/v1/about", "about", "What the model came from, and its card.", about, About),
    Route(
        "/v1/golden",
        "golden",
        "The golden inputs, run here at most once a minute, against the checkpoint's answers.",
        golden,
        GoldenHeld,
    ),
    Route(
        "/v1/drift",
        "drift",
        "How far the last hour's traffic has moved from what the model was trained on.",
        drift,
        Movement,
    ),
)
