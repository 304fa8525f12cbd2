"""SIGTERM without a failed request.

BentoML's supervisor keeps its listening socket open until the worker has gone, so a connection
that comes while the worker shuts down is accepted by nobody, hangs, and is reset. Here SIGTERM
first only makes the service say that it is leaving:

1. for ``drain_s`` seconds everything is still answered, ``/readyz`` says no, and each answer
   closes its connection, so that clients and load balancers go elsewhere;
2. the kernel drops what would begin another connection, and those that it completed before that
   are accepted: the client of one that is left in its queue would be reset, request and all;
3. the listening socket is shut down: who connects now, or tries again a second after being
   dropped, is refused, which is safe to try again, and never left hanging;
4. open connections get their answers, and one on which nothing was asked yet is given some seconds
   to ask: its client may be slow, or far away;
5. uvicorn's own handler ends the worker.
"""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import struct
from typing import Any

__all__ = ["CLOSING_S", "Drain", "drop_new_connections", "queued", "stop_listening"]

logger = logging.getLogger("bentoml.ptft")

_POLL_S = 0.02
_SETTLE_S = 0.25  # for handshakes that have begun
_ACCEPT_POLLS = 100  # at most, for the event loop to accept what is queued
_PASSES = 5  # of the event loop, in which what it accepted last becomes a connection
_IDLE_S = 0.5  # for another request on a connection that is open when listening ends
_FIRST_S = 3.0  # for the first request on one, from the end of listening on
CLOSING_S = _SETTLE_S + _ACCEPT_POLLS * _POLL_S + _FIRST_S
"""Seconds after those of draining in which a first request is still taken, at most."""


class Drain:
    """Takes SIGTERM from uvicorn and hands it back when nobody is left to be served."""

    def __init__(self, drain_s: float) -> None:
        self.started = False
        self.requests = 0  # being answered; counted by the app
        self._drain_s = drain_s
        self._task: asyncio.Task[None] | None = None
        self._uvicorn: Any = None

    @property
    def installed(self) -> bool:
        """Whether the process is a server's of its own."""
        return self._uvicorn is not None

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
        try:
            await self._serve_the_last()
        except Exception:
            logger.exception("draining ends early")
        finally:
            self._uvicorn.handle_exit(signal.SIGTERM, None)

    async def _serve_the_last(self) -> None:
        await asyncio.sleep(self._drain_s)
        servers = getattr(self._uvicorn, "servers", ())
        listening = [_duplicate(each) for server in servers for each in server.sockets]
        for each in listening:
            drop_new_connections(each)
        await asyncio.sleep(_SETTLE_S)
        for _ in range(_ACCEPT_POLLS):
            if not any(map(queued, listening)):
                break
            await asyncio.sleep(_POLL_S)
        for each in listening:
            stop_listening(each)
            each.close()
        for _ in range(_PASSES):
            await asyncio.sleep(0)
        waited = quiet = 0.0
        while (waited < _FIRST_S and self._unasked()) or (quiet < _IDLE_S and self._connections()):
            await asyncio.sleep(_POLL_S)
            waited += _POLL_S
            quiet = 0.0 if self.requests else quiet + _POLL_S

    def _connections(self) -> set[Any]:
        connections: set[Any] = self._uvicorn.server_state.connections
        return connections

    def _unasked(self) -> bool:
        """Whether there is a connection on which nothing was asked yet."""
        return any(getattr(each, "cycle", each) is None for each in self._connections())


def _duplicate(listening: Any) -> socket.socket:
    """The socket of an event loop, which shows it only in part, as one of our own."""
    return socket.socket(fileno=os.dup(listening.fileno()))


# Classic BPF on the bytes of a TCP segment (linux/filter.h): code, jump if true, if false, value.
_NO_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # and SYN | ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python's socket has no name for it

_UNACKED = 24  # where tcp_info (linux/tcp.h) has tcpi_unacked: the queue's length when listening


def drop_new_connections(listening: socket.socket) -> None:
    """Have the kernel drop each SYN, for every process that shares the socket.

    Handshakes that have begun are completed, and what is in the queue can still be accepted.
    Where there are no socket filters nothing changes, and a line in the log says so.
    """
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    program = struct.pack("HP", len(_NO_SYN), ctypes.addressof(steps))
    try:
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:
        logger.warning("connections that come while listening ends may be reset: %s", error)


def queued(listening: socket.socket) -> int:
    """How many connections the kernel has completed that no process has accepted (Linux)."""
    try:
        info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
    except OSError:  # a Unix socket
        return 0
    return int(struct.unpack_from("I", info, _UNACKED)[0])


def stop_listening(listening: socket.socket) -> None:
    """End listening for every process that shares the socket, BentoML's supervisor too."""
    try:
        listening.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        logger.warning("the listening socket stays open: %s", error)
