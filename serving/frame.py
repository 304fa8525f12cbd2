"""Around every request, whatever its path: its id, its ticket, whose key it brings, what each
answer says, and what is counted and logged of it.

The ticket lives until the answer is written: a client that reads slowly is charged for what waits
for it.
"""

import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.asked import CALLER, DIGEST_HEADER, REFUSED, REQUEST_ID, TICKET
from serving.guard import PROBES
from serving.logs import CURRENT_ID, log_access
from serving.refusal import Refusal
from serving.state import State, refuse

__all__ = ["Cors", "Direct", "Frame", "Guarded"]

_ID_HEADER = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_NOT_ASKED = PROBES | {"/metrics"}  # by nobody who waits for an embedding
_SECRETS = (b"authorization", b"x-api-key")


class Frame:
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
        request_id = _request_id(scope)
        CURRENT_ID.set(request_id)
        scope[REQUEST_ID] = request_id
        ticket = scope[TICKET] = state.admission.open(state.phases())
        status = size = 0

        async def send_more(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                ticket.phases.enter("write")
                status = message["status"]
                headers = list(message["headers"])
                headers.append((_ID_HEADER, request_id.encode()))
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
                state.traces.record(scope, started, status, ticket.phases, request_id)
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origins = self._state().settings.cors_origins
        if origins not in self._for:
            self._for[origins] = CORSMiddleware(
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
        await self._for[origins](scope, receive, send)


class Direct:
    """ASGI middleware: posts to paths that are known, past the framework's search for them and its
    reading of parameters, which cost half of what a short text's answer does beside the tower.

    Args:
        app: what answers all others.
        endpoints: by path; they raise nothing.
        routes: by path, for whoever asks the scope for its route.
    """

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[str, Callable[[Request], Awaitable[Response]]],
        routes: Mapping[str, object],
    ) -> None:
        self._app = app
        self._endpoints = endpoints
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        endpoint = None
        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = self._endpoints.get(scope["path"])
        if endpoint is None or scope.get("root_path"):
            await self._app(scope, receive, send)
            return
        scope["route"] = self._routes[scope["path"]]
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def _request_id(scope: Scope) -> str:
    """The client's own, where it is one that may stand in a log; else a new one."""
    given, secrets = b"", []
    for name, value in scope["headers"]:
        if name == _ID_HEADER:
            given = bytes(value)
        elif name in _SECRETS:
            secrets.append(bytes(value))
    if _ID.fullmatch(given) and not any(given in secret for secret in secrets):
        return given.decode()
    return uuid.uuid4().hex
