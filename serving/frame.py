"""Around every request, whatever its path: its id, its ticket, whose key it brings, what each
answer says, and what is counted and logged of it.

The ticket lives until the answer is written: a client that reads slowly is charged for what waits
for it.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.asked import CALLER, DIGEST_HEADER, REFUSED, REQUEST_ID, TICKET
from serving.document import Route
from serving.door import PROBES
from serving.logs import CURRENT_ID, log_access
from serving.refusal import Refusal
from serving.request_ids import HEADER, request_id
from serving.state import State, json_bytes, refuse

__all__ = ["App", "Cors", "Direct", "Guarded", "HttpFrame"]

_NOT_ASKED = PROBES | {"/metrics"}  # by nobody who waits for an embedding


class App(FastAPI):
    """FastAPI behind everything that is around every request.

    Attributes:
        serving: the worker, once it has started.
        outermost: what is asked first.

    Middleware that it is told of stands within its own (errors, telemetry, a limit on bodies), each
    of which costs as much as one of ours and does nothing for what is answered past its router.
    """

    serving: State

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.outermost: ASGIApp = super().__call__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.outermost(scope, receive, send)


class HttpFrame:
    """ASGI middleware, the outermost.

    Args:
        app: what answers.
        state: of the worker, once it has started.
    """

    def __init__(self, app: ASGIApp, state: Callable[[], State]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        state = self._state()
        name = scope[REQUEST_ID] = request_id(scope["headers"])
        CURRENT_ID.set(name)
        ticket = scope[TICKET] = state.admission.open(state.phases())
        status = size = 0

        async def send_more(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                ticket.phases.enter("write")
                status = message["status"]
                headers = list(message["headers"])
                headers.append((HEADER, name.encode()))
                if state.encoder is not None:
                    digest = state.encoder.model.info.digest
                    headers.append((DIGEST_HEADER.encode(), digest.encode()))
                if state.drain.started:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            else:
                size += len(message.get("body", b""))
            await send(message)

        state.drain.requests += 1
        try:
            await self._app(scope, receive, send_more)
        finally:
            state.drain.requests -= 1
            ticket.close()
            ticket.phases.finish()
            if scope["path"] not in _NOT_ASKED:
                state.metrics.observe_phases(ticket.phases)
                state.traces.record(scope, started, status, ticket.phases, name)
            reason, caller = scope.get(REFUSED, ""), scope.get(CALLER, "")
            if reason and scope["path"] not in PROBES:
                state.metrics.rejected.labels(reason, caller).inc()
            if state.settings.access_log:
                seconds = time.perf_counter() - started
                method, path = scope["method"], scope["path"]
                log_access(method, path, status, seconds, size, caller, reason)


class Guarded:
    """ASGI middleware: who asks.

    Args:
        app: what answers those who may.
        state: of the worker, once it has started.
    """

    def __init__(self, app: ASGIApp, state: Callable[[], State]) -> None:
        self._app = app
        self._state = state

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """One request. Where nothing is to be done, nothing waits between: whatever stands in the
        way of an answer is gone through again each time that it is waited for."""
        if scope["type"] != "http" or not self._state().guard.needs_key(scope["path"]):
            return self._app(scope, receive, send)
        return self._ask(scope, receive, send)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        guard = self._state().guard
        try:
            leave = guard.enter(scope)
        except Refusal as refusal:
            await refuse(Request(scope), refusal)(scope, receive, send)
            return
        if guard.is_shared:
            scope[TICKET].caller = scope.get(CALLER, "")
        try:
            await self._app(scope, receive, send)
        finally:
            leave()


class Cors:
    """ASGI middleware: what browsers are told of other origins; nothing unless some are given.

    Args:
        app: what answers.
        state: of the worker, once it has started.
    """

    def __init__(self, app: ASGIApp, state: Callable[[], State]) -> None:
        self._app = app
        self._state = state
        self._for: dict[tuple[str, ...], ASGIApp] = {(): app}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """One request."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        origins = self._state().settings.cors_origins
        if origins not in self._for:
            self._for[origins] = _Preflights(
                self._app,
                allow_origins=origins,
                allow_methods=("GET", "HEAD", "POST"),
                allow_headers=(
                    "authorization",
                    "content-type",
                    "x-api-key",
                    "x-request-id",
                    DIGEST_HEADER,
                ),
                expose_headers=("retry-after", "x-request-id", DIGEST_HEADER),
            )
        return self._for[origins](scope, receive, send)


class _Preflights(CORSMiddleware):
    """What it refuses has the shape of every refusal."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        refusal = Refusal(answer.status_code, "cors", bytes(answer.body).decode())
        content = json_bytes(refusal.content(CURRENT_ID.get()))
        told = {k: v for k, v in answer.headers.items() if not k.startswith("content-")}
        return Response(content, refusal.status, told, media_type="application/json")


class Direct:
    """ASGI middleware: posts to paths that are known, past the framework's search for them and its
    reading of parameters, which cost half of what a short text's answer does beside the tower.

    Args:
        app: what answers all others.
        state: of the worker, once it has started.
        routes: by path.
    """

    def __init__(
        self, app: ASGIApp, state: Callable[[], State], routes: Mapping[str, Route]
    ) -> None:
        self._app = app
        self._state = state
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        route = None
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            route = self._routes.get(scope["path"])
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        response = await self._state().answer(route.name, request, route.handler)
        await response(scope, receive, send)
