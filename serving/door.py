"""Who answers while no worker accepts: a thread of the supervisor, on the same listening socket.

A connection that comes between a worker's death and the next one's start would lie in the kernel's
queue until that has loaded. Each worker holds a shared lock while it accepts (:func:`hold`), which
the kernel takes from it when it dies, however it dies. As long as nobody holds it the door accepts,
says 503 with Retry-After, and closes. Where it is told to wait, it tells probes alone, so that
nobody sends more, and hands whatever else has come to the worker that accepts in time.
"""

import asyncio
import atexit
import fcntl
import json
import logging
import os
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from serving.refusal import Refusal
from serving.request_ids import request_id

__all__ = ["PROBES", "Door", "hold"]

logger = logging.getLogger("bentoml.ptft")

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/ping", "/health", "/v1/health"})
"""Paths that say how the worker is: told at once, of everybody, and counted nowhere."""

_VARIABLE = "_PTFT_DOOR"  # where the lock lies; the supervisor sets it for its workers
_LOOK_S = 0.05
_HEADER_S, _REST_S = 2.0, 1.0  # that a client has to say what it wants, and to read the answer
_HEADER_BYTES = 1 << 16
_MOST = 256  # clients at once
_PIECE = 1 << 16
_held: list[IO[bytes]] = []


def hold() -> None:
    """Called by a worker that accepts from now on, and until the process ends."""
    if path := os.environ.get(_VARIABLE):
        lock = Path(path).open("rb")  # noqa: SIM115 (open for as long as the process lives)
        fcntl.flock(lock, fcntl.LOCK_SH)
        _held.append(lock)


class Door:
    """Of one supervisor; to be made before it starts a worker, which inherits its environment.

    Args:
        wait_s: seconds that a request waits for a worker before it is told 503.
    """

    def __init__(self, wait_s: float = 0.0) -> None:
        self._wait_s = wait_s
        self._lock, path = tempfile.mkstemp(prefix="ptft-door-")
        os.environ[_VARIABLE] = path
        atexit.register(Path(path).unlink, missing_ok=True)

    def open(self, listening: socket.socket) -> None:
        """Begin to answer on a socket for workers that are not there."""
        ours = socket.socket(fileno=os.dup(listening.fileno()))
        thread = threading.Thread(
            target=lambda: asyncio.run(_keep(ours, self._lock, self._wait_s)),
            name="ptft-door",
            daemon=True,
        )
        thread.start()


async def _keep(listening: socket.socket, lock: int, wait_s: float) -> None:
    loop = asyncio.get_running_loop()
    listening.setblocking(False)
    answering: set[asyncio.Task[None]] = set()
    while True:
        await asyncio.sleep(_LOOK_S)
        if not answering and not _nobody(lock):
            await _until_nobody(lock)
        while len(answering) < _MOST and _nobody(lock):
            try:
                client, _ = listening.accept()
            except BlockingIOError:
                break
            except OSError:  # listening has ended
                if answering:
                    await asyncio.wait(answering)
                return
            task = loop.create_task(_answer(client, lock, wait_s))
            answering.add(task)
            task.add_done_callback(answering.discard)


async def _until_nobody(lock: int) -> None:
    """Wait until no worker accepts: the kernel says when, and nobody looks meanwhile."""
    loop, left = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_UN)
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(left.set)

    # a daemon: the process does not wait for it at its end
    threading.Thread(target=wait, name="ptft-door-wait", daemon=True).start()
    await left.wait()


def _nobody(lock: int) -> bool:
    """Whether no worker accepts."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


async def _answer(client: socket.socket, lock: int, wait_s: float) -> None:
    client.setblocking(False)
    writer = None
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        reader, writer = await asyncio.open_connection(sock=client, limit=_HEADER_BYTES)
        async with asyncio.timeout(_HEADER_S):
            head = await reader.readuntil(b"\r\n\r\n")
        if wait_s and not _is_probe(head) and await _worker(lock, wait_s):
            await _hand_over(client.getsockname()[:2], head, reader, writer)
            return
        writer.write(_answer_bytes(head))
        writer.write_eof()
        async with asyncio.timeout(_REST_S):  # or what it still sends would reset the answer
            while await reader.read(_HEADER_BYTES):
                pass
    if writer is not None:
        writer.close()


def _is_probe(head: bytes) -> bool:
    words = head.split(b" ", 2)
    return len(words) > 1 and words[1].partition(b"?")[0].decode("latin-1") in PROBES


async def _worker(lock: int, wait_s: float) -> bool:
    """Whether one accepts in time."""
    deadline = asyncio.get_running_loop().time() + wait_s
    while _nobody(lock):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


async def _hand_over(
    place: tuple[str, int], head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Pass bytes both ways between a client and the worker, until the worker closes."""
    try:
        theirs, ours = await asyncio.open_connection(*place)
        ours.write(head)
        sending = asyncio.create_task(_pass_on(reader, ours))
        try:
            await _pass_on(theirs, writer)
        finally:
            sending.cancel()
            ours.close()
    finally:
        writer.close()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE):
        target.write(piece)
        await target.drain()
    target.write_eof()


def _answer_bytes(head: bytes) -> bytes:
    refusal = Refusal(503, "not_ready", "no worker accepts; one is being started", retry_after=1)
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    name = request_id((key.lower(), value.strip()) for key, _, value in lines)
    body = json.dumps(refusal.content(name)).encode()
    return (
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
        b"connection: close\r\nx-request-id: %s\r\ncontent-length: %d\r\n\r\n%s"
        % (name.encode(), len(body), b"" if head.startswith(b"HEAD ") else body)
    )
