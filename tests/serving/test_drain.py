"""The end of listening, on real sockets: nobody who got a connection is reset."""

import asyncio
import errno
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from serving.drain import drop_new_connections, queued, stop_listening
from tests.serving.server import REPO, free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")

_HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@pytest.fixture(params=_HOSTS, ids=["ipv4", "ipv6"])
def listening(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param) as listening:
        try:
            listening.bind((_HOSTS[request.param], 0))
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        listening.listen(8)
        yield listening


def _connect(listening: socket.socket, timeout_s: float) -> socket.socket:
    return socket.create_connection(listening.getsockname()[:2], timeout_s)


def test_what_the_kernel_completed_is_answered_and_the_next_is_refused(
    listening: socket.socket,
) -> None:
    clients = [_connect(listening, 5) for _ in range(3)]
    for number, client in enumerate(clients):
        client.sendall(b"request %d" % number)
    drop_new_connections(listening)
    with pytest.raises(TimeoutError):
        _connect(listening, 0.2)
    assert queued(listening) == 3
    for number, client in enumerate(clients):
        accepted, _ = listening.accept()
        assert queued(listening) == 2 - number
        with accepted, client:
            assert accepted.recv(100) == b"request %d" % number
            accepted.sendall(b"answer %d" % number)
            assert client.recv(100) == b"answer %d" % number
    stop_listening(listening)
    with pytest.raises(ConnectionRefusedError):
        _connect(listening, 5)


def test_who_is_dropped_is_refused_when_trying_again(listening: socket.socket) -> None:
    drop_new_connections(listening)
    with socket.socket(listening.family) as client:
        client.setblocking(False)
        assert client.connect_ex(listening.getsockname()) == errno.EINPROGRESS
        stop_listening(listening)
        _, ended, _ = select.select([], [client], [], 30)  # its SYN is sent again after a second
        assert ended
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_a_socket_of_the_file_system_has_no_queue_to_ask_for() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")
        listening.listen()
        assert queued(listening) == 0


_BUSY = """
import asyncio, json, socket, sys, time
import uvicorn
from serving.drain import Drain

drain = Drain(json.loads(sys.argv[2]))

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            if event == "startup":
                drain.install()
            await send({"type": f"lifespan.{event}.complete"})
        return
    drain.requests += 1
    time.sleep(0.004)  # an event loop that does something, so that connections queue up
    await asyncio.sleep(0.01)
    drain.requests -= 1
    headers = [(b"content-length", b"6")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"answer"})

listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
supervisor = listening.dup()  # BentoML's keeps it open
uvicorn.Server(uvicorn.Config(app, log_config=None)).run(sockets=[listening])
"""
_CLIENTS = 48


@contextmanager
def _busy(drain_s: float | None) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """The port and the process of a server whose event loop is busy."""
    port = free_port()
    command = [sys.executable, "-c", _BUSY, str(port), json.dumps(drain_s)]
    with subprocess.Popen(command, cwd=REPO) as process:
        try:
            _wait_until_answering(port)
            yield port, process
        finally:
            process.kill()


def test_a_busy_server_resets_nobody() -> None:
    """Clients that each connect anew for every request, until they are refused."""
    answered: list[bytes] = []
    lost: list[Exception] = []

    async def keep_asking(port: int) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            try:
                writer.write(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
                answered.append(await reader.read())
            except OSError as error:
                lost.append(error)
            writer.close()

    async def drive(port: int, process: "subprocess.Popen[bytes]") -> None:
        asking = [asyncio.create_task(keep_asking(port)) for _ in range(_CLIENTS)]
        while len(answered) < 2 * _CLIENTS:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        await asyncio.gather(*asking)

    with _busy(0.2) as (port, process):
        asyncio.run(asyncio.wait_for(drive(port, process), 60))
        assert process.wait(30) == -signal.SIGTERM
    assert lost == []
    assert all(answer.endswith(b"\r\n\r\nanswer") for answer in answered)


def test_who_connected_in_time_may_ask_late() -> None:
    """A client that is held up between its connection and its request is answered all the same."""
    with _busy(0.0) as (port, process), socket.create_connection(("127.0.0.1", port), 30) as late:
        process.send_signal(signal.SIGTERM)
        _wait_until_refusing(port)
        time.sleep(1)
        late.sendall(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
        answer = b""
        while piece := late.recv(1000):
            answer += piece
        assert process.wait(30) == -signal.SIGTERM
    assert answer.endswith(b"\r\n\r\nanswer")


def test_who_never_asks_is_not_waited_for_long() -> None:
    with _busy(0.0) as (port, process), socket.create_connection(("127.0.0.1", port), 30) as silent:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
        assert silent.recv(1) == b""


def test_a_drain_that_fails_still_ends_the_worker() -> None:
    with _busy(None) as (_, process):  # no number of seconds to sleep
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


def _wait_until_refusing(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 0.1).close()
        except ConnectionRefusedError:
            return
        except TimeoutError:  # dropped: listening is about to end
            pass
        time.sleep(0.02)
    raise AssertionError("the server still listens")


def _wait_until_answering(port: int) -> None:
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}")
            return
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("the server does not answer")
