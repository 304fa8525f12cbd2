"""Request bodies to bytes: within the caps, charged before they are held, and not waited for ever.

A body takes nothing of what others need until it is there: small ones are charged when they are
whole, large ones wait for memory before their first byte is read, and who falls silent is let go.
"""

import asyncio
import time

from starlette.requests import ClientDisconnect, Request

from serving.admission import Cost, Ticket
from serving.refusal import Refusal
from serving.settings import Settings

__all__ = ["COPIES", "LARGE", "read_body"]

LARGE = 64 * 2**10
"""Bytes of a body beyond which it is read only once there is memory for it, and not parsed where
all requests are."""

COPIES = 2
"""How many times a body's bytes are held while it is parsed: itself, and what it is parsed to."""

_LEAST_RATE = 1024  # bytes a second, on average; at least what would be there by the deadline


async def read_body(request: Request, ticket: Ticket, settings: Settings) -> bytearray:
    """The whole body, charged ``COPIES`` times.

    Raises:
        Refusal: 408 when it does not come, 413 beyond the cap, 415 where it is packed, 429 where
            there is no memory.
        ClientDisconnect: the client has gone.
    """
    _check_encodings(request)
    limit = settings.max_body_bytes
    header = request.headers.get("content-length", "")
    declared = int(header) if header.isascii() and header.isdigit() else 0
    if declared > limit:
        raise _too_large(declared, limit)
    charged = 0
    if declared > LARGE:
        await ticket.wait_for_memory(declared * COPIES)
        charged = declared
    body, size = bytearray(charged), 0  # one that grows is moved as it does
    began = time.monotonic()
    more = True
    while more:
        piece, more = await _receive(request, settings.body_idle_s)
        body[size : size + len(piece)] = piece
        size += len(piece)
        if size > limit:
            raise _too_large(size, limit)
        if size - charged > LARGE:
            ticket.charge(Cost(memory=(size - charged) * COPIES))
            charged = size
        elapsed = time.monotonic() - began
        least = max(_LEAST_RATE, declared / settings.timeout_s) * elapsed
        if more and elapsed > settings.body_idle_s and size < least:
            raise _too_slow(f"{size} bytes in {elapsed:.0f} s, of {declared or 'some'}")
    del body[size:]
    if size > charged:
        ticket.charge(Cost(memory=(size - charged) * COPIES))
    return body


def _check_encodings(request: Request) -> None:
    """Refuse a packed body: what it would be unpacked to is not known before."""
    for name, allowed in (
        ("content-encoding", ("", "identity")),
        ("transfer-encoding", ("", "identity", "chunked")),
    ):
        if (given := request.headers.get(name, "").strip().lower()) not in allowed:
            what = f"{name} {given:.40}: allowed: {allowed[-1]}; a body is not unpacked"
            raise Refusal(415, "media_type", what)


async def _receive(request: Request, idle_s: float) -> tuple[bytes, bool]:
    """The next piece of a body, and whether there is more."""
    try:
        async with asyncio.timeout(idle_s):
            message = await request.receive()
    except TimeoutError:
        raise _too_slow(f"nothing for {idle_s:g} s (PTFT_BODY_IDLE_S)") from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _too_large(size: int, limit: int) -> Refusal:
    message = f"a body of {size} bytes or more; allowed: at most {limit} (PTFT_MAX_BODY_BYTES)"
    return Refusal(413, "body_too_large", message)


def _too_slow(what: str) -> Refusal:
    return Refusal(408, "body_too_slow", f"the body does not come: {what}", close=True)
