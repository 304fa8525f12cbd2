"""SIGTERM without a failed request.

BentoML's supervisor keeps its listening socket open until the worker has gone, so a connection
that comes while the worker shuts down is accepted by nobody, hangs, and is reset. Here SIGTERM
first only makes the service say that it is leaving:

1. for ``drain_s`` seconds everything is still answered, ``/readyz`` says no, and each answer
   closes its connection, so that clients and load balancers go elsewhere;
2. the listening socket is shut down: who connects now is refused at once, which is safe to try
   again, and never left hanging;
3. open connections get their answers;
4. uvicorn's own handler ends the worker.
"""

import asyncio
import logging
import signal
import socket
from typing import Any

__all__ = ["Drain"]

logger = logging.getLogger("bentoml.ptft")

_POLL_S = 0.02
_IDLE_S = 0.5  # for requests on their way on connections that are open when listening ends


class Drain:
    """Takes SIGTERM from uvicorn and hands it back when nobody is left to be served."""

    def __init__(self, drain_s: float) -> None:
        self.started = False
        self.requests = 0  # being answered; counted by the app
        self._drain_s = drain_s
        self._task: asyncio.Task[None] | None = None
        self._uvicorn: Any = None

    def install(self) -> None:
        """Take the signal over; a process without uvicorn's handler is left as it is."""
        handler = signal.getsignal(signal.SIGTERM)
        server = getattr(handler, "__self__", None)
        if type(server).__module__.partition(".")[0] != "uvicorn":
            return  # a test client, or another server: its own business
        self._uvicorn = server
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._start)

    def _start(self) -> None:
        if not self.started:
            self.started = True
            logger.info("SIGTERM: draining for %g s", self._drain_s)
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        await asyncio.sleep(self._drain_s)
        for server in getattr(self._uvicorn, "servers", ()):
            for listening in server.sockets:
                _stop_listening(listening)
        quiet = 0.0
        while quiet < _IDLE_S and self._connections():
            await asyncio.sleep(_POLL_S)
            quiet = 0.0 if self.requests else quiet + _POLL_S
        self._uvicorn.handle_exit(signal.SIGTERM, None)

    def _connections(self) -> int:
        return len(self._uvicorn.server_state.connections)


def _stop_listening(listening: Any) -> None:
    """End listening for every process that shares the socket, BentoML's supervisor too."""
    descriptor = socket.socket(fileno=listening.fileno())
    try:
        descriptor.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        logger.warning("the listening socket stays open: %s", error)
    finally:
        descriptor.detach()  # it is uvicorn's to close
