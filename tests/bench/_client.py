"""An HTTP client that takes as little of the machine as can be, for what is measured there."""

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["Answer", "Client", "at_a_rate", "in_turn", "post"]


class Answer(NamedTuple):
    """A status, and seconds from the last byte of the request to the first of the answer."""

    status: int
    seconds: float


@dataclass
class Client:
    """The same request again and again, over connections that are kept.

    Attributes:
        url: where to.
        request: its bytes, see :func:`post`.
    """

    url: str
    request: bytes
    _free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=deque)

    def next_request(self) -> bytes:
        """The bytes that are sent next."""
        return self.request

    async def ask(self) -> Answer:
        """One request, on a free connection or a new one; status 0 where it has no answer."""
        parts = urlsplit(self.url)
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():  # else the service has closed it meanwhile
                break
        else:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(self.next_request())
        await writer.drain()
        began = time.perf_counter()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            seconds = time.perf_counter() - began
            lines = head.lower().split(b"\r\n")
            length = next(int(one[15:]) for one in lines if one.startswith(b"content-length:"))
            await reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return Answer(0, time.perf_counter() - began)
        if b"connection: close" in lines:
            writer.close()
        else:
            self._free.append((reader, writer))
        return Answer(int(head[9:12]), seconds)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


def post(path: str, media: str, body: bytes) -> bytes:
    """A request's bytes."""
    lines = (
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        f"content-type: {media}",
        f"content-length: {len(body)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


async def in_turn(client: Client, clients: int, seconds: float) -> list[Answer]:
    """Answers to clients that wait for each of theirs."""
    end = time.perf_counter() + seconds
    found: list[Answer] = []

    async def one() -> None:
        while time.perf_counter() < end:
            found.append(await client.ask())
            assert found[-1].status == 200, found[-1]

    await asyncio.gather(*(one() for _ in range(clients)))
    return found


async def at_a_rate(client: Client, rate: float, seconds: float) -> list[Answer]:
    """Requests at random times, so many a second on average, whether others are answered or not."""
    draw = random.Random(0)
    asked: list[asyncio.Task[Answer]] = []
    began = due = time.perf_counter()
    while due < began + seconds:
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        asked.append(asyncio.ensure_future(client.ask()))
        due += draw.expovariate(rate)
    return list(await asyncio.gather(*asked))
