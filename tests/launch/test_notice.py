"""A run whose machine is taken away is told, as Google's and Amazon's metadata servers tell it."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ptft.launch.notice import await_notice, is_taken_away

GOOGLE = "/computeMetadata/v1/instance/preempted"
AMAZON = "/latest/meta-data/spot/instance-action"
SAID = {GOOGLE: "TRUE", AMAZON: '{"action": "terminate", "time": "2026-12-01T08:22:00Z"}'}


@contextlib.contextmanager
def served(cloud: str, after: int) -> Iterator[str]:
    """The address of a metadata server, whose notice is there after so many questions; it answers
    those alone who ask as its cloud wants them to."""
    asked = []

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = None
            if cloud == GOOGLE == self.path and self.headers["Metadata-Flavor"] == "Google":
                asked.append(self.path)
                text = SAID[cloud] if len(asked) > after else "FALSE"
            if (
                cloud == AMAZON == self.path
                and self.headers["X-aws-ec2-metadata-token"] == "secret"
            ):
                asked.append(self.path)
                text = SAID[cloud] if len(asked) > after else None
            self._answer(text)

        def do_PUT(self) -> None:
            named = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            asks = cloud == AMAZON and self.path == "/latest/api/token" and named
            self._answer("secret" if asks else None)

        def _answer(self, text: str | None) -> None:
            body = (text or "").encode()
            self.send_response(404 if text is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that ends when its input does."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as one:
        yield one


@pytest.mark.parametrize("cloud", [GOOGLE, AMAZON], ids=["Google", "Amazon"])
def test_a_process_is_told_once_there_is_a_notice(
    cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a machine asks itself
    with served(cloud, after=2) as address:
        assert [is_taken_away(address) for _ in range(2)] == [False, False]
        assert is_taken_away(address)
    with served(cloud, after=2) as address, process() as one:
        assert await_notice(one.pid, address, every=0.0)
        assert one.wait() == -signal.SIGTERM


def test_it_ends_with_the_process() -> None:
    with process() as one:
        pass
    with served(GOOGLE, after=10) as address:
        assert not await_notice(one.pid, address, every=0.0)


def test_elsewhere_nobody_answers_and_nothing_is_sent() -> None:
    with served("another", after=0) as address:
        assert not is_taken_away(address)
    with process() as one:
        assert not await_notice(one.pid, address, every=0.0), "it is gone by now"
        assert one.poll() is None
