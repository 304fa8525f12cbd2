"""A connection to the loopback Hub: a request read whole, planned faults, the reply."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.hub_state import (
    MOST,
    Request,
)

if TYPE_CHECKING:
    from tests.support.loopback_hub import LoopbackHub


class Connection(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a client may be silent
    disable_nagle_algorithm = True  # or small answers wait 40 ms for an acknowledgement

    def _serve(self) -> None:
        hub, url = self.hub, urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.close_connection = True  # no idle connections to a Hub that has gone
        if refused := self._refused(headers):
            self.send_response_only(refused)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        query = {key: value for key, value in parse_qsl(url.query) if value != "false"}
        call = Request(self.command, unquote(url.path), query, headers)
        hub.requests.append(call)
        size = int(headers.get("content-length", 0))
        cut = hub.faults.take("cut", call, size) if size else None
        limit = int(cut.value) if cut else size
        while piece := self.rfile.read1(min(limit - call.received, 1 << 16)):
            call.body += piece
            call.received += len(piece)
        if call.received < size:
            return  # cut, or the client hung up
        reply, call.body = hub.answer(call, url.path), bytearray()
        if hub.faults.take("lose_reply", call):
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        head = {"Content-Length": str(len(body)), "Connection": "close", **reply.headers}
        self.send_response_only(reply.status)
        for name, value in head.items():
            self.send_header(name, value)
        self.end_headers()
        cut = hub.faults.take("cut", call, len(body)) if call.method == "GET" else None
        end = int(cut.value) if cut else 0 if call.method == "HEAD" else len(body)
        call.status = None if cut else reply.status
        call.sent = end  # before it leaves: a client may have read it and asked what was sent
        with suppress(ConnectionError):  # the client hung up, or was killed
            self.wfile.write(body[:end])

    def _refused(self, headers: dict[str, str]) -> int | None:
        """The status of a request that is larger than any client's here, before it is read."""
        size = headers.get("content-length", "0")
        if not re.fullmatch(r"[0-9]{1,18}", size) or "transfer-encoding" in headers:
            return 400
        if len(self.path) > MOST["line"]:
            return 414
        if sum(map(len, [*headers, *headers.values()])) > MOST["headers"]:
            return 431
        return 413 if int(size) > MOST["body"] else None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815
