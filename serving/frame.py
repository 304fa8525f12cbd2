"""Around every request, whatever its path: its id, its ticket, and what each answer says.

The ticket lives until the answer is written: a client that reads slowly is charged for what waits
for it.
"""

import re
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.asked import REQUEST_ID, TICKET

if TYPE_CHECKING:
    from serving.state import State

__all__ = ["DIGEST_HEADER", "Frame"]

DIGEST_HEADER = "ptft-model-digest"
_ID_HEADER = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class Frame:
    """ASGI middleware.

    Args:
        app: what answers.
        state: of the worker, once it has started.
    """

    def __init__(self, app: ASGIApp, state: Callable[[], "State"]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = self._state()
        request_id = _request_id(scope)
        scope[REQUEST_ID] = request_id
        ticket = scope[TICKET] = state.admission.open()

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                headers.append((_ID_HEADER, request_id.encode()))
                if state.encoder is not None:
                    digest = state.encoder.model.info.digest
                    headers.append((DIGEST_HEADER.encode(), digest.encode()))
                if state.drain.started:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        state.drain.requests += 1
        try:
            await self._app(scope, receive, send_more)
        finally:
            state.drain.requests -= 1
            ticket.close()


def _request_id(scope: Scope) -> str:
    """The client's own, where it is one that may stand in a log; else a new one."""
    for name, value in scope["headers"]:
        if name == _ID_HEADER and _ID.fullmatch(value):
            return bytes(value).decode()
    return uuid.uuid4().hex
