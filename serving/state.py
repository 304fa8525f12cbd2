"""What a worker holds while it runs, and the frame around every request."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ptft.errors import PtftError
from serving.admission import Admission, Slots
from serving.drain import Drain
from serving.encoder import Encoder
from serving.metrics import Metrics
from serving.model import load_model
from serving.refusal import Refusal
from serving.settings import Settings, unknown_settings

__all__ = ["DIGEST_HEADER", "Asked", "State", "json_response"]

logger = logging.getLogger("bentoml.ptft")

DIGEST_HEADER = "ptft-model-digest"
_CLIENT_GONE = 499  # nginx's; nobody reads it but the metrics


class Asked:
    """One request and what answers it.

    Attributes:
        request: Starlette's.
        encoder: the model.
        slots: hold as many as the request has items, once that is known.
        settings, metrics: of the worker.
    """

    def __init__(self, request: Request, state: "State", encoder: Encoder, slots: Slots) -> None:
        self.request = request
        self.encoder = encoder
        self.slots = slots
        self.settings = state.settings
        self.metrics = state.metrics


class State:
    """A worker: its settings, its model once that is loaded, its counters."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.admission = Admission(settings.max_queue, self.metrics.queue_items.set)
        self.drain = Drain(settings.drain_s)
        self.encoder: Encoder | None = None
        self.failure: str = ""
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to load the model; until that is done the service is alive but not ready."""
        for message in unknown_settings():
            logger.warning(message)
        self.drain.install()
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """Let go of the model."""
        if self._loading is not None:
            await self._loading
        if self.encoder is not None:
            self.encoder.close()

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.encoder is not None and not self.drain.started

    @property
    def alive(self) -> bool:
        """Whether it makes sense to go on; False once the model cannot be loaded, or hangs."""
        return not self.failure and (self.encoder is None or self.encoder.is_alive())

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            model = await asyncio.to_thread(load_model, self.settings)
        except PtftError as error:
            self.failure = str(error)
            logger.error("the model cannot be served: %s", error)
            return
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
            logger.exception("the model cannot be served")
            return
        info = model.info
        self.encoder = Encoder(model, self.settings, self._observe)
        self.metrics.model_info.labels(info.name, info.digest, model.precision).set(1)
        seconds = time.monotonic() - started
        logger.info("serving %s %s, loaded in %.1f s", info.name, info.digest, seconds)

    def _observe(self, kind: str, items: int, seconds: float) -> None:
        self.metrics.observe_batch(kind, items, seconds)
        self.admission.observe(items, seconds)

    async def answer(
        self, route: str, request: Request, handler: Callable[[Asked], Awaitable[Response]]
    ) -> Response:
        """Answer a request within its deadline, or say why not; count it either way."""
        started = time.perf_counter()
        self.drain.requests += 1
        try:
            response = await self._answer(request, handler)
        finally:
            self.drain.requests -= 1
        if self.encoder is not None:
            response.headers[DIGEST_HEADER] = self.encoder.model.info.digest
        if self.drain.started:
            response.headers["connection"] = "close"
        self.metrics.requests.labels(route, str(response.status_code)).inc()
        self.metrics.seconds.labels(route).observe(time.perf_counter() - started)
        return response

    async def _answer(
        self, request: Request, handler: Callable[[Asked], Awaitable[Response]]
    ) -> Response:
        try:
            if self.encoder is None:
                raise Refusal(503, "not_ready", self.failure or "loading", retry_after=1)
            with self.admission.enter() as slots:
                async with asyncio.timeout(self.settings.timeout_s):
                    return await handler(Asked(request, self, self.encoder, slots))
        except TimeoutError:
            limit = f"{self.settings.timeout_s:g} s (PTFT_TIMEOUT_S)"
            refusal = Refusal(504, "deadline", f"no answer within {limit}")
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        except Refusal as error:
            refusal = error
        except Exception:
            logger.exception("%s %s", request.method, request.url.path)
            refusal = Refusal(500, "internal", "the service failed; its log says how")
        self.metrics.rejected.labels(refusal.kind).inc()
        return json_response(refusal.content(), refusal.status, refusal.headers())


def json_response(
    content: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """JSON, arrays of float32 with the fewest digits that give them back."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")
