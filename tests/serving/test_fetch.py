"""Pictures by URL: only from hosts that are named, and never from an address inside."""

import asyncio
import base64
import contextlib
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptft.errors import SampleError
from ptft.model import DualEncoder
from serving.admission import Admission, Ticket
from serving.fetch import Fetcher, is_public
from serving.origins import host_of, origin_of
from serving.refusal import Refusal
from serving.settings import Settings
from tests.serving.conftest import Client, checkpoint_images
from tests.serving.running import started

HOST = "pictures.example"
PICTURE = b"\x89PNG" + bytes(5000)


class Pages(BaseHTTPRequestHandler):
    """A host with pictures, and with traps."""

    picture = PICTURE
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['host']}{self.path}")
        port = self.server.server_address[1]
        moved = {
            "/moved": f"http://{HOST}:{port}/a%20b.png?c=d",
            "/relative": "/a%20b.png?c=d",
            "/loop": "/loop",
            "/inside": f"http://inside.example:{port}/a.png",
            "/metadata": "http://169.254.169.254/latest/meta-data",
            "/other-scheme": "file:///etc/passwd",
        }
        if self.path in moved:
            self.answer(302, b"", location=moved[self.path])
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.1)
        elif self.path == "/undeclared":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(200_000))
        elif self.path == "/packed":
            self.answer(200, b"x", content_encoding="gzip")
        elif self.path == "/gone":
            self.answer(404, b"")
        else:
            self.answer(200, bytes(200_000) if self.path == "/large" else self.picture)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the fetcher has seen enough
            super().handle()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving_pages(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def port() -> Iterator[int]:
    Pages.asked.clear()
    with serving_pages() as found:
        yield found


def resolving(*answers: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """A resolver that gives one answer after another, then the last for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def loopback(address: str) -> bool:
    """What stands for a public address here."""
    return address == "127.0.0.1"


def fetcher(port: int, **more: Any) -> Fetcher:
    given = {"resolve": resolving(["127.0.0.1"]), "allowed": loopback, **more}
    hosts = (f"http://{HOST}:{port}",)
    return Fetcher(hosts, **{"seconds": 60.0, "max_bytes": 100_000, **given})


def ticket(memory: int = 10**7) -> Ticket:
    return Admission(10, memory, 10.0).open()


def get(found: Fetcher, *urls: str, charged: Ticket | None = None) -> list[bytes | SampleError]:
    async def run() -> list[bytes | SampleError]:
        try:
            for url in urls:
                found.check(url, "images[0]")
            places = [(url, f"images[{index}]") for index, url in enumerate(urls)]
            return await found.get_all(places, charged or ticket())
        finally:
            await found.close()

    return asyncio.run(run())


def test_a_picture_is_fetched_and_charged(port: int) -> None:
    charged = ticket()
    url = f"http://{HOST}:{port}"
    found = get(
        fetcher(port), f"{url}/a b.png?c=d", f"{url}/moved", f"{url}/relative", charged=charged
    )
    assert found == [PICTURE] * 3
    assert set(Pages.asked) >= {f"{HOST}:{port}/a%20b.png?c=d"}
    assert charged.cost.memory == 3 * len(PICTURE)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/inside", "it leads to a host that is not in PTFT_URL_HOSTS"),
        ("/metadata", "it leads to a host that is not in PTFT_URL_HOSTS"),
        ("/other-scheme", "it leads to what is no http or https URL"),
        ("/loop", "more than 3 redirects"),
        ("/large", "200000 bytes or more; allowed: at most 100000"),
        ("/undeclared", "bytes or more; allowed: at most 100000"),
        ("/slow", "no whole picture within 3 s (PTFT_URL_S)"),
        ("/packed", "compresses what was asked for as it is"),
        ("/gone", "its host answers 404"),
    ],
)
def test_what_is_not_as_it_should_be_fails_alone(port: int, path: str, why: str) -> None:
    url = f"http://{HOST}:{port}"
    seconds = 3.0 if path == "/slow" else 60.0
    bad, good = get(fetcher(port, seconds=seconds), f"{url}{path}", f"{url}/a.png")
    assert isinstance(bad, SampleError)
    assert str(bad).startswith("images[0]: the picture could not be fetched: ")
    assert why in str(bad)
    assert good == PICTURE


def test_a_name_cannot_lead_inside(port: int) -> None:
    url = f"http://{HOST}:{port}/a.png"
    for addresses in (["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["::1"], []):
        (found,) = get(fetcher(port, resolve=resolving(addresses)), url)
        assert isinstance(found, SampleError)
        assert "an address that is not public" in str(found)
        assert "10.0.0.1" not in str(found)
    (real,) = get(fetcher(port, allowed=is_public), url)
    assert "an address that is not public" in str(real)
    assert Pages.asked == []


def test_a_name_is_looked_at_again_on_each_redirect(port: int) -> None:
    """The first time it leads outside, the second time inside."""
    changing = fetcher(port, resolve=resolving(["127.0.0.1"], ["10.0.0.1"]))
    (found,) = get(changing, f"http://{HOST}:{port}/relative")
    assert isinstance(found, SampleError)
    assert "an address that is not public" in str(found)
    assert Pages.asked == [f"{HOST}:{port}/relative"]


def test_no_room_for_what_comes_refuses_the_request(port: int) -> None:
    with pytest.raises(Refusal) as refused:
        get(fetcher(port), f"http://{HOST}:{port}/a.png", charged=ticket(memory=4000))
    assert refused.value.status == 413


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates_are_held_against_the_name(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=x"]
    command += ["-addext", f"subjectAltName=DNS:{HOST}"]
    subprocess.run(command, check=True, capture_output=True)
    serves = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serves.load_cert_chain(certificate, key)
    with serving_pages(serves) as port:
        hosts = (f"{HOST}:{port}", f"other.example:{port}")
        given: dict[str, Any] = {"resolve": resolving(["127.0.0.1"]), "allowed": loopback}
        given |= {"seconds": 60.0, "max_bytes": 10**6}
        trusts = ssl.create_default_context(cafile=str(certificate))
        (good,) = get(Fetcher(hosts, tls=trusts, **given), f"https://{HOST}:{port}/a.png")
        (named,) = get(Fetcher(hosts, tls=trusts, **given), f"https://other.example:{port}/a.png")
        (unknown,) = get(Fetcher(hosts, **given), f"https://{HOST}:{port}/a.png")
    assert good == PICTURE
    assert isinstance(named, SampleError)
    assert isinstance(unknown, SampleError)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:0a00:0001::1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True),
        ("2001:0:53aa:64c::1", False),
        ("fec0::1", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_hosts_as_they_are_named() -> None:
    assert host_of("Pictures.Example.") == ("https", HOST, 443)
    assert host_of("http://pictures.example:81") == ("http", HOST, 81)
    assert origin_of("https://bücher.example/x") == ("https", "xn--bcher-kva.example", 443)
    for wrong in ("pictures.example/a", "ftp://a", "a@b", "", "http://", "a:b", "a?b"):
        with pytest.raises(ValueError, match="allowed: HOST"):
            host_of(wrong)


def test_the_service_fetches_from_named_hosts_alone(
    port: int, folder: Path, model: DualEncoder, pictures: list[bytes], client: Client
) -> None:
    """The whole way, with the loopback taken for a public address."""
    named, other = f"http://{HOST}:{port}/a.png", f"http://inside.example:{port}/a.png"
    sent = base64.b64encode(pictures[1]).decode()

    async def run() -> list[tuple[int, Any]]:
        import httpx2

        async with started(Settings(model=folder)) as (app, state):
            state.fetcher = fetcher(port)
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://x") as ask:
                bodies: list[tuple[str, dict[str, Any]]] = [
                    ("/v1/embed/image", {"images": [named, sent, f"http://{HOST}:{port}/gone"]}),
                    ("/v1/embeddings", {"input": [named], "modality": "image"}),
                    ("/v1/embed/image", {"images": [sent, other]}),
                ]
                answers = [await ask.post(path, json=body) for path, body in bodies]
                return [(one.status_code, one.json()) for one in answers]

    Pages.picture = pictures[0]
    try:
        (mixed, openai, refused) = asyncio.run(run())
    finally:
        Pages.picture = PICTURE
    expected = checkpoint_images(model, pictures[:2])
    assert mixed[0] == 200
    found = [one["embedding"] for one in mixed[1]["results"][:2]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert "its host answers 404" in mixed[1]["results"][2]["error"]["message"]
    np.testing.assert_allclose(openai[1]["data"][0]["embedding"], expected[0], rtol=0, atol=1e-5)
    assert refused[0] == 422
    assert "none of those in PTFT_URL_HOSTS" in refused[1]["error"]["message"]
    with client(url_hosts=(f"http://localhost:{port}",)) as ask:  # nothing injected
        answer = ask.post(
            "/v1/embed/image", json={"images": [f"http://localhost:{port}/a.png", sent]}
        )
    assert "not public" in answer.json()["results"][0]["error"]["message"]
    assert "embedding" in answer.json()["results"][1]
