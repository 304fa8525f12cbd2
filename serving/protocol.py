"""uvicorn's HTTP protocol with limits on what comes before a request: bytes, time, connections.

uvicorn bounds none of them on its httptools protocol: a header may grow for ever, a connection may
stay silent for ever. Every limit is a setting; who goes beyond one gets an answer where HTTP has
one, and loses the connection. At the cap of connections a new one takes the place of the one that
has been silent longest, so that those who hold connections and say nothing keep nobody out.
"""

import asyncio
import resource
import sys
import time
from functools import cache
from typing import Any, Literal

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.asked import LOST
from serving.refusal import Refusal
from serving.request_ids import request_id
from serving.settings import Settings, read_settings

__all__ = ["NAME", "WRITE_S", "Protocol", "most_connections", "settings"]

NAME = f"{__name__}:Protocol"
"""As uvicorn's settings have it."""

_SWEEP_S = 0.25  # between looks at all connections
_OVERHEAD = 1 << 20  # bytes of a body's framing: sizes of chunks, extensions, trailers
WRITE_S = 30.0
"""Seconds without a byte being taken of an answer."""

_OTHER_FILES = 128  # that the process may have open beside its connections

_UPGRADE = (b"upgrade", b"http2-settings")

Phase = Literal["idle", "header", "request", "rest"]


@cache
def settings() -> Settings:
    """Of the environment."""
    return read_settings()


@cache
def most_connections() -> int:
    """The setting, as far as the system lets the process have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    wanted = settings().max_connections
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - _OTHER_FILES))


class Protocol(HttpToolsProtocol):
    """One connection.

    A connection is ``idle`` between requests, in a ``header`` until one is whole, in a ``request``
    until that is answered, and in the ``rest`` of a body that nobody reads any more.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.ws_protocol_class = None  # there is nothing here to upgrade to
        self.phase: Phase = "idle"
        self.since = self.last_byte = time.monotonic()
        self._bytes = 0  # of the present phase
        self._header_bytes = 0
        self._stuck: float | None = None  # since when nothing of the answer has been taken
        self._lost: asyncio.Future[None] = self.loop.create_future()
        self._data = self._again = b""  # what is parsed, and what is to be parsed once more
        self._upgrades = False  # the header that was just read asks for another protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            self._make_room()
        if not getattr(self.server_state, "sweeping", False):
            self.server_state.sweeping = True  # type: ignore[attr-defined]
            self.loop.call_later(_SWEEP_S, _sweep, self.loop, self.server_state)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.last_byte = time.monotonic()
        if self.phase == "idle":
            self._enter("header")
        self._bytes += len(data)
        self._again = data
        while self._again and not self.transport.is_closing():
            self._data, self._again = self._again, b""
            super().data_received(self._data)
        if self.transport.is_closing():
            return
        limit = settings().max_header_bytes
        if self._header_bytes > limit or (self.phase == "header" and self._bytes > limit):
            what = f"a header of more than {limit} bytes (PTFT_MAX_HEADER_BYTES)"
            self.refuse(Refusal(431, "header_too_large", what))
        elif self.phase == "request" and self._bytes > _OVERHEAD:
            self.refuse(Refusal(400, "http", f"more than {_OVERHEAD} bytes of chunk framing"))
        elif self.phase == "rest" and self._bytes > settings().max_body_bytes:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[LOST] = self._lost  # type: ignore[literal-required]
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._header_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._header_bytes > settings().max_header_bytes:
            return  # refused where the data came from
        self._upgrades = self.parser.should_upgrade()
        if self._upgrades:
            return  # parsed once more without
        self._enter("request")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bytes -= len(body) if self.phase == "request" else 0
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrades:
            return
        if self.phase == "rest":
            self._enter("idle")
        if self.cycle is not None:
            super().on_message_complete()
            self.headers = []  # the request has them; whatever is refused next has not
            if not self.pipeline:
                self.flow.resume_reading()  # a large body paused it; the client's leaving is read

    def on_response_complete(self) -> None:
        self._enter("rest" if self.cycle.more_body else "idle")
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._stuck = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stuck = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self.refuse(Refusal(400, "http", msg))

    def refuse(self, refusal: Refusal) -> None:
        """Answer, where no answer has begun, and close."""
        if (state := self.app_state.get("serving")) is not None:
            state.metrics.rejected.labels(refusal.kind, "").inc()
        if not self._is_answering() and not self.transport.is_closing():
            name = request_id(self.headers or ())
            body = orjson.dumps(refusal.content(name))
            lines = (
                b"content-type: application/json",
                b"content-length: %d" % len(body),
                b"x-request-id: %s" % name.encode(),
                b"connection: close",
            )
            head = STATUS_LINE[refusal.status] + b"\r\n".join(lines)
            self.transport.write(head + b"\r\n\r\n" + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether an answer of ours would stand within another's, or before it. A request whose
        body is broken off has none yet."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return cycle.response_started or not cycle.more_body or bool(self.pipeline)

    def _unsupported_upgrade_warning(self) -> None:
        """It is answered as if it had not asked. The parser has stopped before the body, which
        would be read as the next request: another one has the header without what asks."""
        error, method = sys.exc_info()[1], self.parser.get_method()
        self._upgrades = False
        if not isinstance(error, httptools.HttpParserUpgrade) or method == b"CONNECT":
            self.refuse(Refusal(400, "http", "CONNECT: this is no proxy"))
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                value = b", ".join(token for token in tokens if token.lower() not in _UPGRADE)
            if name not in _UPGRADE:
                lines.append(b"%s: %s" % (name, value))
        self._again = b"\r\n".join([*lines, b"", self._data[error.args[0] :]])
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's

    def check(self, now: float) -> None:
        """End a connection that has gone beyond a limit of time."""
        limits, since = settings(), now - self.since
        if self.phase == "idle" and since > limits.idle_s:
            self.transport.close()
        elif self.phase == "header" and since > limits.header_s:
            what = f"no whole header within {limits.header_s:g} s (PTFT_HEADER_S)"
            self.refuse(Refusal(408, "header_too_slow", what))
        elif self.phase == "rest" and since > limits.header_s:
            self.transport.close()
        elif self._stuck is not None and now - self._stuck > WRITE_S:
            self.transport.abort()

    def _enter(self, phase: Phase) -> None:
        self.phase, self.since, self._bytes = phase, time.monotonic(), 0

    def _make_room(self) -> None:
        """Close the connection that has been silent longest; this one, where all are busy."""
        others = [each for each in self.connections if each is not self]
        silent = [each for each in others if isinstance(each, Protocol) and each.is_silent()]
        if silent:
            oldest = min(silent, key=lambda each: each.last_byte)
            oldest.connections.discard(oldest)
            oldest.transport.abort()
        else:
            what = f"{len(others)} connections are busy (PTFT_MAX_CONNECTIONS)"
            self.refuse(Refusal(503, "too_many_connections", what, retry_after=1))

    def is_silent(self) -> bool:
        """Whether it is the client that is waited for."""
        return self.phase != "request" or (self.cycle is not None and self.cycle.more_body)


def _sweep(loop: asyncio.AbstractEventLoop, server_state: Any) -> None:
    now = time.monotonic()
    for each in list(server_state.connections):
        if isinstance(each, Protocol) and not each.transport.is_closing():
            each.check(now)
    server_state.sweeping = bool(server_state.connections)
    if server_state.sweeping:
        loop.call_later(_SWEEP_S, _sweep, loop, server_state)
