"""A share of what is asked here is also asked of another release, whose answers nobody gets: it is
counted whether its best answer to each item is the one that was given.

A copy begins when the answer has been written, and never holds one up: at most two are under way,
and together they hold no more bytes than one body may have; what comes beyond that is passed over
and counted. Two models' embeddings lie in two spaces, so of requests for embeddings it is only
counted whether they were answered.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.asked import DIGEST_HEADER
from serving.metrics import Metrics

__all__ = ["CanaryMirror", "Mirrored", "best_answers"]

logger = logging.getLogger("bentoml.ptft")

_AT_ONCE = 2
_SENT_ON = frozenset({b"content-type", b"authorization", b"x-api-key", b"x-request-id"})
_OTHER_MODEL = 421


@dataclass
class _Copy:
    """A request and the answer that it got here."""

    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytearray = field(default_factory=bytearray)
    answer: bytearray = field(default_factory=bytearray)
    status: int = 0
    whole: bool = False
    passed_over: bool = False


class CanaryMirror:
    """All methods belong to one event loop.

    Args:
        url: of the other release.
        share: of the requests, from 0 to 1.
        max_bytes: of all bodies and answers that are held for it at once.
        seconds: to an answer.
        metrics: where it is counted.
        draw: numbers from 0 to 1.
    """

    def __init__(
        self,
        url: str,
        share: float,
        *,
        max_bytes: int,
        seconds: float,
        metrics: Metrics,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._url = url
        self._share = share
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._metrics = metrics
        self._draw = draw
        self._held = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: Any = None
        self._failing = False
        for outcome in (
            "answered",
            "failed",
            "passed_over",
        ):  # there from the first on, to be drawn
            metrics.mirrored_requests.labels(outcome)
        for outcome in ("same", "other"):
            metrics.mirrored_items.labels(outcome)

    def copy(self, scope: Scope) -> _Copy | None:
        """What is to be filled, of a request that is chosen; one that names a model is for that
        model alone."""
        headers = scope["headers"]
        if self._draw() >= self._share or any(n == DIGEST_HEADER.encode() for n, _ in headers):
            return None
        query = scope["query_string"].decode("latin-1")
        path = f"{scope['path']}?{query}" if query else scope["path"]
        return _Copy(path, [one for one in headers if one[0] in _SENT_ON])

    def hold(self, copy: _Copy, part: bytearray, data: bytes) -> None:
        """Keep a piece of its body or answer, while there is room for it."""
        if copy.passed_over:
            return
        if self._held + len(data) > self._max_bytes:
            self._let_go(copy)
            copy.passed_over = True
            return
        self._held += len(data)
        part += data

    def _let_go(self, copy: _Copy) -> None:
        self._held -= len(copy.body) + len(copy.answer)
        copy.body.clear()
        copy.answer.clear()

    def answered(self, copy: _Copy) -> None:
        """The answer is written: ask the other release, unless it is behind already."""
        if copy.status != 200 or not (copy.whole or copy.passed_over):
            self._let_go(copy)
        elif copy.passed_over or len(self._tasks) >= _AT_ONCE:
            self._let_go(copy)
            self._metrics.mirrored_requests.labels("passed_over").inc()
        else:
            task = asyncio.create_task(self._ask(copy))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _ask(self, copy: _Copy) -> None:
        try:
            await self._compare(copy)
        finally:
            self._let_go(copy)

    async def _compare(self, copy: _Copy) -> None:
        import httpx2

        if self._client is None:
            # no proxy and no netrc of the environment: the address is where it goes
            self._client = httpx2.AsyncClient(
                base_url=self._url, timeout=self._seconds, trust_env=False
            )
        try:
            answer = await self._client.post(
                copy.path, content=bytes(copy.body), headers=copy.headers
            )
        except httpx2.HTTPError as error:
            self._count("failed", f"{type(error).__name__}: {error}")
            return
        if answer.status_code == _OTHER_MODEL:  # the body names this one
            self._count("passed_over")
        elif answer.status_code != 200:
            self._count("failed", f"{copy.path}: {answer.status_code}")
        else:
            try:
                same, other = await asyncio.to_thread(
                    _count_same, bytes(copy.answer), answer.content
                )
            except (LookupError, TypeError, ValueError) as error:
                self._count("failed", f"{copy.path}: no such answer: {error}")
                return
            self._count("answered")
            self._metrics.mirrored_items.labels("same").inc(same)
            self._metrics.mirrored_items.labels("other").inc(other)

    def _count(self, outcome: str, why: str = "") -> None:
        self._metrics.mirrored_requests.labels(outcome).inc()
        if why and not self._failing:  # once, until it answers again
            logger.warning("mirrored requests fail: %s: %s", self._url, why)
        if outcome != "passed_over":
            self._failing = bool(why)


class Mirrored:
    """ASGI middleware: requests on their way to a mirror, where there is one.

    Args:
        app: what answers.
        mirror: of the worker, once it has started.
        paths: that are mirrored.
    """

    def __init__(
        self, app: ASGIApp, mirror: Callable[[], CanaryMirror | None], paths: Collection[str]
    ) -> None:
        self._app = app
        self._mirror = mirror
        self._paths = paths

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """One request."""
        mirror = self._mirror() if scope["type"] == "http" else None
        copy = None
        if mirror is not None and scope["method"] == "POST" and scope["path"] in self._paths:
            copy = mirror.copy(scope)
        if mirror is None or copy is None:
            return self._app(scope, receive, send)
        return self._copied(mirror, copy, scope, receive, send)

    async def _copied(
        self, mirror: CanaryMirror, copy: _Copy, scope: Scope, receive: Receive, send: Send
    ) -> None:
        async def receive_more() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                mirror.hold(copy, copy.body, message.get("body", b""))
                copy.whole = not message.get("more_body", False)
            return message

        async def send_more(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                copy.status = message["status"]
            else:
                mirror.hold(copy, copy.answer, message.get("body", b""))

        try:
            await self._app(scope, receive_more, send_more)
        except BaseException:
            copy.status = 0
            raise
        finally:
            mirror.answered(copy)


def best_answers(answer: bytes) -> list[Any]:
    """What an answer holds to be best, an entry an item; None for one that failed.

    Of classes the first, of similarities the text with the highest
    score, of a ranking its first document. Empty where the answer ranks nothing.
    """
    found = orjson.loads(answer)
    if not isinstance(found, dict) or not isinstance(found.get("results"), list):
        return []
    results = [one for one in found["results"] if isinstance(one, dict)]
    if any("relevance_score" in one for one in results):
        return [results[0]["index"]]
    if any(key in one for one in results for key in ("classes", "scores")):
        return [_best(one) for one in results]
    return []


def _best(row: dict[str, Any]) -> Any:
    if classes := row.get("classes"):
        return classes[0]["label"]
    if scores := row.get("scores"):
        return max(range(len(scores)), key=scores.__getitem__)
    return None


def _count_same(own: bytes, other: bytes) -> tuple[int, int]:
    """Items with the same best answer, and with another or none."""
    mine, theirs = best_answers(own), best_answers(other)
    same = sum(a == b for a, b in zip(mine, theirs, strict=False))
    return same, max(len(mine), len(theirs)) - same
