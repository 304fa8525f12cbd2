"""What a worker holds while it runs, and how a request is answered within its deadline."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ptft.artifact import ModelInfo
from ptft.errors import ArtifactError, PtftError, UsageError
from ptft.index import Index
from ptft.onnx.golden import read_golden
from serving.admission import Admission
from serving.asked import DIGEST_HEADER, REFUSED, REQUEST_ID, Asked
from serving.door import hold
from serving.drain import Drain
from serving.drift import Drift, read_drift
from serving.encoder import Encoder
from serving.fetch import Fetcher
from serving.first_run import UNSERVABLE, Worker
from serving.guard import KeyGuard
from serving.health import Health
from serving.logs import write_logs
from serving.memory import freeze_what_is_there, give_back_at_once
from serving.metrics import Metrics
from serving.mirror import CanaryMirror
from serving.model import open_index, open_model, verify_model
from serving.other_model import check_digest
from serving.phases import NOT_TIMED, Phases
from serving.pool import Pool
from serving.refusal import Refusal
from serving.settings import Settings, unknown_settings
from serving.traces import Traces

__all__ = ["State", "json_bytes", "refuse"]

logger = logging.getLogger("bentoml.ptft")

_CLIENT_GONE = 499  # nginx's; nobody reads it but the metrics
_END_S = 2.0  # for threads, once the last request is answered


class State:
    """A worker: its settings, its model once that is loaded, its counters."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.guard = KeyGuard(settings)
        self.metrics = Metrics(on=settings.metrics != "off")
        self.traces = Traces(settings)
        self.admission = Admission(
            settings.max_queue,
            settings.max_memory_bytes // 3,  # decoding has the rest
            settings.max_work_s,
            settings.list_timeout_s / 3,
        )
        self.drain = Drain(settings.drain_s)
        self.health = Health(settings, self.admission)
        self.parsing = Pool("parse", 1)  # parsers hold the interpreter: more would be no faster
        self.fetcher = Fetcher(
            settings.url_hosts, seconds=settings.url_s, max_bytes=settings.max_body_bytes
        )
        self.mirror: CanaryMirror | None = None
        if settings.mirror_url:
            self.mirror = CanaryMirror(
                settings.mirror_url,
                settings.mirror_share,
                max_bytes=settings.max_body_bytes,
                seconds=settings.timeout_s,
                metrics=self.metrics,
            )
        self.encoder: Encoder | None = None
        self.drift = Drift()
        self._worker = Worker()
        self.index: Index | None = None
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to load the model; until that is done the service is alive but not ready."""
        self.drain.install()
        if self.drain.installed:
            write_logs(self.settings.log_format)
        for message in unknown_settings():
            logger.warning(message)
        if self.guard.is_open:
            logger.warning("open to everybody: no API keys (PTFT_KEYS_FILE, PTFT_KEYS)")
        give_back_at_once()
        self.health.start()
        hold()
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """Let go of the model; what does not let go of the process is left behind."""
        self.health.stop()
        self.metrics.write()
        await asyncio.to_thread(self.traces.close)
        await self.fetcher.close()
        if self.mirror is not None:
            await self.mirror.close()
        parts: list[Pool | Encoder] = [self.parsing]
        if self.encoder is not None:
            parts.append(self.encoder)
        for part in parts:
            part.close()
        until = time.monotonic() + _END_S
        while time.monotonic() < until:
            loading = self._loading is not None and not self._loading.done()
            if not loading and not any(part.busy_for() for part in parts):
                return
            await asyncio.sleep(0.02)
        if self.drain.installed:
            logger.error("the model is still busy; the process ends without it")
            os._exit(0 if self.encoder else 1)

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            info, drift, encoder = await self._opened()
            self.index = await asyncio.to_thread(open_index, self.settings, info)
            self._worker.came_through()
        except PtftError as error:
            self._fail(str(error))
            return
        except Exception as error:
            logger.exception("the model cannot be loaded")
            self._fail(f"{type(error).__name__}: {error}")
            return
        self.drift = drift
        self.encoder = self.health.encoder = encoder
        model = encoder.model
        self.metrics.set_model(info.name, info.digest, model.precision, model.provider)
        self.metrics.set_batches({tower.name: tower.max_batch for tower in encoder.towers})
        seconds = time.monotonic() - started
        logger.info("serving %s %s, loaded in %.1f s", info.name, info.digest, seconds)
        if self.drain.installed:  # the process is ours
            freeze_what_is_there()
        if info.texts != "yes":
            logger.warning("texts are %s: %s", info.texts, info.texts_reason)
        most = (encoder.images.max_batch, encoder.texts.max_batch)
        logger.info("on %s, at most %d pictures or %d texts at once", model.provider, *most)

    async def _opened(self) -> tuple[ModelInfo, Drift, Encoder]:
        """The model: verified, and run for the first time within bounds."""
        info, held = await asyncio.to_thread(verify_model, self.settings)
        if (most := max(self.settings.dimensions, default=0)) > info.embed_dim:
            raise UsageError(
                f"PTFT_DIMENSIONS={most}: allowed: at most {info.embed_dim}, which {info.name} has"
            )
        with await asyncio.to_thread(self._worker.begin, info, self.settings):
            model = await asyncio.to_thread(open_model, self.settings, info)
            drift = await asyncio.to_thread(read_drift, self.settings, info)
            encoder = Encoder(model, self.settings, self.admission, self.metrics)
            golden = await asyncio.to_thread(read_golden, self.settings.model)
            try:
                await asyncio.to_thread(encoder.calibrate, golden)
            except ArtifactError as error:
                raise ArtifactError(f"{self.settings.model}: {error}") from None
        await asyncio.to_thread(held.check_unchanged)
        return info, drift, encoder

    def _fail(self, why: str) -> None:
        """Nothing can be served: a process that has a supervisor ends."""
        self.health.failure = why
        logger.error("the model cannot be served: %s", why)
        if self.drain.installed:
            self._worker.give_up()
            os._exit(UNSERVABLE)

    def phases(self) -> Phases:
        """Of a request that comes."""
        return Phases() if self.settings.metrics != "off" or self.traces.on else NOT_TIMED

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Metrics as they are now, see ``Metrics.text``."""
        items, memory, work = (
            (one.taken, one.limit)
            for one in (self.admission.items, self.admission.memory, self.admission.work)
        )
        taken = {"queue_items": items, "memory_bytes": memory, "work_seconds": work}
        if self.encoder is not None:
            taken["decoding_bytes"] = self.encoder.decoding_memory
            cache = self.encoder.cache
            taken["cache_bytes"] = (0, 0) if cache is None else (cache.taken, cache.limit)
        self.metrics.set_budgets(taken)
        self.metrics.set_drift(self.drift.read())
        return self.metrics.text(accept)

    async def answer(
        self, route: str, request: Request, handler: Callable[[Asked], Awaitable[Response]]
    ) -> Response:
        """Answer a request within its deadline, or say why not; count it either way."""
        started = time.perf_counter()
        response = await self._answer(request, handler)
        self.metrics.observe_answer(route, response.status_code, time.perf_counter() - started)
        return response

    async def _answer(
        self, request: Request, handler: Callable[[Asked], Awaitable[Response]]
    ) -> Response:
        asked: Asked | None = None
        try:
            if self.encoder is None and self._loading is not None and self.settings.hold_s:
                await asyncio.wait([self._loading], timeout=self.settings.hold_s)
            if self.encoder is None:
                raise Refusal(503, "not_ready", self.health.failure or "loading", retry_after=1)
            check_digest(self.encoder, request.headers.get(DIGEST_HEADER), DIGEST_HEADER)
            worker = (self.encoder, self.settings, self.metrics, self.parsing, self.fetcher)
            asked = Asked(request, *worker, self.drift, self.index)
            async with asked.deadline:
                return await handler(asked)
        except TimeoutError:
            limit = f"{self.settings.timeout_s:g} s (PTFT_TIMEOUT_S)"
            if asked is not None and asked.is_list:
                limit = f"{self.settings.list_timeout_s:g} s (PTFT_LIST_TIMEOUT_S)"
            refusal = Refusal(504, "deadline", f"no answer within {limit}")
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        except asyncio.CancelledError:
            if asked is None or not asked.gone or (task := asyncio.current_task()) is None:
                raise
            task.uncancel()
            return Response(status_code=_CLIENT_GONE)
        except Refusal as error:
            refusal = error
        except Exception:
            logger.exception("%s %s", request.method, request.url.path)
            refusal = Refusal(500, "internal", "the service failed; its log says how")
        finally:
            if asked is not None:
                asked.close()
        _let_go(refusal)
        return refuse(request, refusal)


def _let_go(error: BaseException | None) -> None:
    """Of the frames that an error came through, which hold the request's body: one of them holds
    the error as well, so that all of it would stay until the next collection."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def refuse(request: Request, refusal: Refusal) -> Response:
    """A refusal as an answer; ``serving.frame`` counts it."""
    request.scope[REFUSED] = refusal.kind
    body = json_bytes(refusal.content(request.scope.get(REQUEST_ID, "")))
    return Response(body, refusal.status, refusal.headers(), media_type="application/json")


def json_bytes(content: object) -> bytes:
    """JSON, arrays of float32 with the fewest digits that give them back."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
