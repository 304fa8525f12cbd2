"""Limits on what comes before a request, on real sockets."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from serving import protocol
from serving.asked import LOST
from serving.settings import Settings

DEFAULTS = Settings(model=Path("model"))
LEFT: list[int] = []
"""Bytes that clients of /wait had sent who left."""
GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


async def app(scope: Any, receive: Callable, send: Callable) -> None:
    """Reads the body, if the path asks for it, and says how long it was."""
    size, more = 0, scope["path"] in ("/read", "/wait")
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/wait":
        await scope[LOST]
        LEFT.append(size)
        return
    body = b"x" * 30_000_000 if scope["path"] == "/large" else b"%d" % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Running:
    """A server of the app; ``ask`` is one connection."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server, self.port = server, port

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)

    async def ask(self, *pieces: bytes) -> bytes:
        """All that comes until the server closes."""
        reader, writer = await self.open()
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        answer = b""
        with suppress(ConnectionError):
            while piece := await asyncio.wait_for(reader.read(1 << 16), 20):
                answer += piece
        writer.close()
        return answer

    def connections(self) -> int:
        return len(self.server.server_state.connections)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def change(**settings: Any) -> None:
        changed = replace(DEFAULTS, **settings)
        monkeypatch.setattr(protocol, "settings", lambda: changed)
        monkeypatch.setattr(protocol, "most_connections", lambda: changed.max_connections)

    return change


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=protocol.Protocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield Running(server, listening.getsockname()[1])
    server.should_exit = server.force_exit = True
    await serving


def error(answer: bytes, status: int) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"connection: close" in head.lower()
    found = json.loads(body)["error"]
    assert found["request_id"] and found["request_id"].encode() in head
    return str(found["type"])


@pytest.mark.parametrize(
    "request_",
    [
        [b"GET / HTTP/1.1\r\n", *[b"a: " + b"b" * 900 + b"\r\n"] * 9],
        [b"GET / HTTP/1.1\r\na: " + b"b" * 9000],
        [b"GET /?" + b"q" * 9000 + b" HTTP/1.1\r\nhost: here\r\n\r\n"],
        [b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2000 + b"\r\n"],
    ],
    ids=["lines", "one line", "path", "whole"],
)
def test_a_header_beyond_its_bytes(limits: Callable[..., None], request_: list[bytes]) -> None:
    async def play() -> None:
        async with running() as server:
            assert error(await server.ask(*request_), 431) == "header_too_large"

    limits(max_header_bytes=4096)
    asyncio.run(play())


def test_a_refusal_has_the_clients_own_id_and_none_of_another_request(
    limits: Callable[..., None],
) -> None:
    async def play() -> None:
        async with running() as server:
            long = b"GET / HTTP/1.1\r\nx-request-id: mine\r\n" + b"a: b\r\n" * 2000
            assert b"x-request-id: mine\r\n" in (await server.ask(long))
            named = GET.replace(b"\r\n\r\n", b"\r\nx-request-id: first\r\n\r\n")
            reader, writer = await server.open()
            writer.write(named)
            await reader.readuntil(b"\r\n\r\n0")
            writer.write(b"\0\r\n\r\n")
            refused = await reader.read()
            assert error(refused, 400) == "http" and b"first" not in refused
            writer.close()

    limits(max_header_bytes=4096)
    asyncio.run(play())


def test_a_header_that_does_not_come_and_a_connection_that_says_nothing(
    limits: Callable[..., None],
) -> None:
    async def play() -> None:
        async with running() as server:
            slow = server.ask(b"GET / HT", b"TP/1.1\r\nhost: here")
            silent, kept = server.ask(), server.ask(GET)
            answers = await asyncio.gather(slow, silent, kept)
            assert error(answers[0], 408) == "header_too_slow"
            assert answers[1] == b""
            assert answers[2].startswith(b"HTTP/1.1 200") and answers[2].endswith(b"\r\n\r\n0")

    limits(header_s=0.5, idle_s=1.0)
    asyncio.run(play())


def test_no_http_is_said_in_the_same_shape(limits: Callable[..., None]) -> None:
    async def play() -> None:
        async with running() as server:
            assert error(await server.ask(b"\x16\x03\x01\x02\0\r\n\r\n"), 400) == "http"

    limits()
    asyncio.run(play())


def test_a_body_that_is_broken_off_is_answered_but_never_within_an_answer(
    limits: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        async with running() as server:
            head = b"POST /read HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
            assert error(await server.ask(head + b"2\r\nab\r\nzz\r\n"), 400) == "http"
            two = await server.ask(GET.replace(b"/ ", b"/large ") + b"GARBAGE\r\n\r\n")
            assert two == b"" or (two.count(b"HTTP/1.1") == 1 and two.startswith(b"HTTP/1.1 200"))
            asked = GET.replace(b"host", b"connection: upgrade\r\nupgrade: h2c\r\nhost")
            reader, writer = await server.open()
            writer.write(asked)
            assert (await reader.readuntil(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200")
            writer.close()

    limits()
    asyncio.run(play())
    assert not [one for one in caplog.messages if "upgrade" in one.lower()]


def test_a_new_connection_takes_the_place_of_the_silent_one(limits: Callable[..., None]) -> None:
    async def play() -> None:
        async with running() as server:
            busy = await server.open()
            busy[1].write(b"POST /read HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\n12")
            silent = [await server.open() for _ in range(3)]
            await until(lambda: server.connections() == 4)
            silent[0][1].write(b"GET")  # the second is now the one that was silent longest
            busy[1].write(b"3")
            await asyncio.sleep(0.1)
            reader, writer = await server.open()
            writer.write(GET)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            with suppress(ConnectionError):
                assert await silent[1][0].read() == b""
            busy[1].write(b"4")
            assert (await busy[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert server.connections() == 4
            for _, each in [busy, *silent, (reader, writer)]:
                each.close()

    limits(max_connections=4)
    asyncio.run(play())


def test_a_body_made_of_framing(limits: Callable[..., None]) -> None:
    async def play() -> None:
        async with running() as server:
            head = b"POST /read HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
            answer = await server.ask(head, *[b"1;" + b"e" * 60_000 + b"\r\nx\r\n"] * 40)
            assert answer == b"" or error(answer, 400) == "http"

    limits()
    asyncio.run(play())


def test_the_rest_of_a_body_that_nobody_reads_is_bounded(limits: Callable[..., None]) -> None:
    async def play() -> None:
        async with running() as server:
            head = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n"
            answer = await server.ask(head % 30_000_000, *[b"x" * 100_000] * 300)
            assert answer.startswith(b"HTTP/1.1 200") or answer == b""
            reader, writer = await server.open()  # a short rest is passed over, and the next asked
            writer.write(head % 9 + b"123456789" + GET)
            for _ in range(2):
                assert (await reader.readuntil(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200")
            writer.close()

    limits(max_body_bytes=100_000, idle_s=1.0)
    asyncio.run(play())


def test_who_does_not_take_the_answer_is_let_go(
    limits: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with running() as server:
            reader, writer = await server.open()
            writer.write(GET.replace(b"/ ", b"/large "))
            await until(lambda: server.connections() == 1)
            await until(lambda: server.connections() == 0)
            assert reader is not None
            writer.close()

    limits()
    monkeypatch.setattr(protocol, "WRITE_S", 0.5)
    asyncio.run(play())


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_body_behind_an_upgrade_is_the_body_of_what_asks(
    limits: Callable[..., None], pieces: int
) -> None:
    """Java's client and curl ask for HTTP/2 with their first request, body and all."""

    async def play() -> None:
        async with running() as server:
            head = (
                b"POST /read HTTP/1.1\r\nhost: here\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\ncontent-length: %d\r\n\r\n"
            )
            whole = head % len(GET) + GET + GET.replace(b"host", b"connection: close\r\nhost")
            step = -(-len(whole) // pieces)
            sent = [whole[n : n + step] for n in range(0, len(whole), step)]
            answer = await server.ask(*sent)
            assert answer.count(b"HTTP/1.1 200") == 2  # what asked, and what was sent behind it
            assert b"\r\n\r\n%d" % len(GET) in answer
            assert (
                error(await server.ask(b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n"), 400) == "http"
            )
            many = GET.replace(b"host", b"connection: upgrade\r\nupgrade: h2c\r\nhost") * 1200
            reader, writer = await server.open()
            writer.write(many)
            for _ in range(1200):
                await reader.readuntil(b"\r\n\r\n0")
            writer.close()

    limits()
    asyncio.run(play())


@pytest.mark.parametrize("size", [0, 300_000])
def test_that_a_client_leaves_is_told_once_its_body_is_read(
    limits: Callable[..., None], size: int
) -> None:
    async def play() -> None:
        async with running() as server:
            _, writer = await server.open()
            head = b"POST /wait HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % size
            writer.write(head + b"a" * size)
            await writer.drain()
            await asyncio.sleep(0.1)  # it has all, and waits
            assert not LEFT
            writer.close()
            await until(lambda: [size] == LEFT)

    limits()
    LEFT.clear()
    asyncio.run(play())


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")
