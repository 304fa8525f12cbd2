"""Pictures by URL, from hosts that the deployment names (``PTFT_URL_HOSTS``) and no other.

Off unless a host is named. A name is resolved once for each connection; every address that it has
must be a public one, and the connection goes to the address that was looked at, so that a name
cannot lead inside between the look and the use. Redirects are followed by hand, each held to the
same rules. Bytes are capped and charged to the request as they come, time is capped, no proxy or
credential of the environment is used, and nothing that is sent back says what a name resolved to.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpcore2

from ptft.errors import SampleError
from serving.admission import Cost, Ticket
from serving.origins import host_of, origin_of
from serving.refusal import Refusal

__all__ = ["Fetcher", "is_public"]

_REDIRECTS = 3
_CONNECTIONS = 16  # at once, of all requests
_A_REQUEST = 4  # fetched at once for one request
_CHARGED = 64 * 2**10  # bytes that are charged together
_WORK_S = 0.005  # of a CPU, for a connection with TLS
_MOVED = (301, 302, 303, 307, 308)
_SAFE = "/%:@!$&'()*+,;=-._~?"

Resolve = Callable[[str, int], Awaitable[list[str]]]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, and embeds none that is not."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.teredo is not None or found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


async def resolve_name(host: str, port: int) -> list[str]:
    """The addresses of a name."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class _Inside(Exception):  # noqa: N818 (a verdict)
    """A name has an address that is not public."""


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to the very address that was looked at."""

    def __init__(self, resolve: Resolve, allowed: Callable[[str], bool]) -> None:
        self._resolve = resolve
        self._allowed = allowed
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise httpcore2.ConnectError("the name has no address") from error
        if not addresses or not all(map(self._allowed, addresses)):
            raise _Inside
        return await self._inner.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Fetcher:
    """Fetches pictures; all methods belong to one event loop.

    Args:
        hosts: that may be asked, see ``host_of``; none: every URL is refused.
        seconds: to a whole picture, redirects included.
        max_bytes: of one picture.
        resolve: a name and a port to addresses.
        allowed: whether an address may be connected to.
        tls: what certificates are held against.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        seconds: float,
        max_bytes: int,
        resolve: Resolve = resolve_name,
        allowed: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._origins = {host_of(host) for host in hosts}
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._pool: httpcore2.AsyncConnectionPool | None = None
        self._backend = _Pinned(resolve, allowed)
        self._tls = tls

    def check(self, url: str, place: str) -> None:
        """Refuse a URL of another host; nothing is asked.

        Raises:
            Refusal: 422, naming the place.
        """
        shown = f"{place}: {url.strip():.80}"
        if not self._origins:
            raise Refusal(
                422,
                "url_refused",
                f"{shown}: URLs are never fetched; send the image's bytes, as base64 or "
                "data:image/...;base64, (a deployment may allow hosts: PTFT_URL_HOSTS)",
            )
        try:
            known = origin_of(url.strip()) in self._origins
        except ValueError:
            known = False
        if not known:
            raise Refusal(
                422, "url_refused", f"{shown}: its host is none of those in PTFT_URL_HOSTS"
            )

    async def get_all(
        self, urls: Sequence[tuple[str, str]], ticket: Ticket
    ) -> list[bytes | SampleError]:
        """Files of URLs that were checked, with the place of each; one that fails fails alone.

        Raises:
            Refusal: 413 or 429, where there is no room for what comes.
        """
        ticket.charge(Cost(work=len(urls) * _WORK_S))
        places = asyncio.Semaphore(_A_REQUEST)

        async def one(url: str, place: str) -> bytes | SampleError:
            async with places:
                return await self._get(url.strip(), place, ticket)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(*each)) for each in urls]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def close(self) -> None:
        """Close what connections there are."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    async def _get(self, url: str, place: str, ticket: Ticket) -> bytes | SampleError:
        try:
            async with asyncio.timeout(self._seconds):
                for _ in range(_REDIRECTS + 1):
                    found = await self._once(url, ticket)
                    if isinstance(found, bytes):
                        return found
                    url = urljoin(url, found)
                    if origin_of(url) not in self._origins:
                        return _failed(place, "it leads to a host that is not in PTFT_URL_HOSTS")
                return _failed(place, f"more than {_REDIRECTS} redirects")
        except TimeoutError:
            return _failed(place, f"no whole picture within {self._seconds:g} s (PTFT_URL_S)")
        except _Inside:
            return _failed(place, "its host has an address that is not public")
        except ValueError as error:
            return _failed(place, str(error))
        except (
            httpcore2.NetworkError,
            httpcore2.ProtocolError,
            httpcore2.TimeoutException,
            OSError,
        ) as error:
            return _failed(place, type(error).__name__)

    async def _once(self, url: str, ticket: Ticket) -> bytes | str:
        """The file, or where it is said to be."""
        if self._pool is None:
            self._pool = httpcore2.AsyncConnectionPool(
                ssl_context=self._tls or ssl.create_default_context(),
                max_connections=_CONNECTIONS,
                keepalive_expiry=5.0,
                network_backend=self._backend,
            )
        scheme, host, port = origin_of(url)
        parts = urlsplit(url)
        target = quote(parts.path or "/", safe=_SAFE)
        if parts.query:
            target += "?" + quote(parts.query, safe=_SAFE)
        shown = f"[{host}]" if ":" in host else host
        headers = [("Accept", "image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "ptft")]
        wait = dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)
        address = f"{scheme}://{shown}:{port}{target}"
        async with self._pool.stream(
            "GET", address, headers=headers, extensions={"timeout": wait}
        ) as answer:
            fields = {name.lower(): value for name, value in answer.headers}
            if answer.status in _MOVED and b"location" in fields:
                return str(fields[b"location"].decode("latin-1"))
            if answer.status != 200:
                raise ValueError(f"its host answers {answer.status}")
            if fields.get(b"content-encoding", b"identity") != b"identity":
                raise ValueError("its host compresses what was asked for as it is")
            declared = fields.get(b"content-length", b"0")
            self._check_size(int(declared) if declared.isdigit() else 0)
            return await self._read(answer, ticket)

    async def _read(self, answer: httpcore2.Response, ticket: Ticket) -> bytes:
        """The body, charged twice while it is put together and once after."""
        data, charged = bytearray(), 0
        async for piece in answer.aiter_stream():
            data += piece
            self._check_size(len(data))
            if len(data) - charged > _CHARGED:
                ticket.charge(Cost(memory=2 * (len(data) - charged)))
                charged = len(data)
        ticket.charge(Cost(memory=2 * (len(data) - charged)))
        found = bytes(data)
        ticket.release_memory(len(found))
        return found

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ValueError(f"{size} bytes or more; allowed: at most {self._max_bytes}")


def _failed(place: str, why: str) -> SampleError:
    return SampleError(f"{place}: the picture could not be fetched: {why}")
