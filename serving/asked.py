"""One request and what answers it."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import Request

from ptft.index import Index
from serving.admission import Ticket
from serving.bodies import LARGE
from serving.drift import Drift
from serving.encoder import Encoder
from serving.fetch import Fetcher
from serving.metrics import Metrics
from serving.pool import Pool
from serving.settings import Settings

__all__ = ["CALLER", "DIGEST_HEADER", "LOST", "REFUSED", "REQUEST_ID", "TICKET", "Asked"]

DIGEST_HEADER = "ptft-model-digest"
"""Of a request: the model that is to answer; of an answer: the one that did."""

REQUEST_ID, TICKET = "ptft.request_id", "ptft.ticket"
"""Keys of the ASGI scope, set by ``serving.frame``."""

CALLER, REFUSED = "ptft.caller", "ptft.refused"
"""Others: the name of the API key that a request brought, and the kind of its refusal."""

LOST = "ptft.lost"
"""One more, set by ``serving.protocol``: a future that is done once the connection is lost."""

_S_A_BYTE = 4e-9  # of parsing, of the dearest kind: base64 in JSON

R = TypeVar("R")


class Asked:
    """A request, and what its handler needs.

    Attributes:
        request: Starlette's.
        encoder: the model.
        ticket: what the request's costs are charged to, and its lane in every queue.
        settings, metrics, fetcher, drift, index: of the worker.
        gone: the client has left.
        deadline: of the answer.
        is_list: it has the deadline of a list.
    """

    def __init__(
        self,
        request: Request,
        encoder: Encoder,
        settings: Settings,
        metrics: Metrics,
        parsing: Pool,
        fetcher: Fetcher,
        drift: Drift,
        index: Index | None = None,
    ) -> None:
        self.request = request
        self.encoder = encoder
        self.ticket: Ticket = request.scope[TICKET]
        self.settings = settings
        self.metrics = metrics
        self.fetcher = fetcher
        self.drift = drift
        self.index = index
        self.gone = self.is_list = False
        self._parsing = parsing
        self._task = asyncio.current_task()
        self._watching: asyncio.Future[None] | None = None
        self._came = asyncio.get_running_loop().time()
        self.deadline = asyncio.timeout_at(self._came + settings.timeout_s)

    def allow_list(self) -> None:
        """Give the request the time of a list."""
        self.deadline.reschedule(self._came + self.settings.list_timeout_s)
        self.is_list = True

    async def apart(self, size: int, function: Callable[..., R], *arguments: Any) -> R:
        """Call a function, in a thread where it has so many bytes to do with that others would
        wait for it."""
        if size <= LARGE:
            return function(*arguments)
        return await self.apart_for(size * _S_A_BYTE, function, *arguments)

    async def apart_for(self, seconds: float, function: Callable[..., R], *arguments: Any) -> R:
        """The same of what is estimated to take so long, in a thread."""
        return await self._parsing.run(self.ticket, function, *arguments, seconds=seconds)

    def watch(self) -> None:
        """Once the body is read: give the request up when its client leaves."""
        if self._watching is None:
            # a server that is not ours does not tell: a task waits
            lost = self.request.scope.get(LOST) or asyncio.ensure_future(self._wait_for_the_end())
            self._watching = lost
            lost.add_done_callback(self._leave)

    def close(self) -> None:
        """It is answered. Who watches it is let go of: the two hold each other, and only a
        collection of garbage would find them."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.remove_done_callback(self._leave)
            if isinstance(watching, asyncio.Task):
                watching.cancel()

    async def _wait_for_the_end(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass

    def _leave(self, _: object) -> None:
        self.gone = True
        if self._task is not None:
            self._task.cancel()
