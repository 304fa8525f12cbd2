"""The script of `helm test`, run as the pod runs it, against a server on this machine.

The server is a stand-in, for a real one does not give wrong answers on request; what it is asked
and answers is held to the service's own schema.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from serving.client_answers import OpenAIEmbedded
from serving.schema_clients import OpenAIEmbeddings

from .conftest import ChartUnderTest, environment


class Service(ThreadingHTTPServer):
    """Answers as it is told: how many times /readyz says no, and what an embedding looks like."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.refusals = 0
        self.status = 200
        self.embedding: list[float] = [0.6, 0.8]
        self.asked: list[Any] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Two routes of the service."""

    server: Service

    def do_GET(self) -> None:
        self.server.refusals -= 1
        self.answer(503 if self.server.refusals >= 0 else 200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        self.server.keys.append(self.headers["Authorization"])
        OpenAIEmbeddings.model_validate(body)
        data = [{"object": "embedding", "index": 0, "embedding": self.server.embedding}]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        answer = {
            "object": "list",
            "data": data,
            "usage": usage,
            "model": "m",
            "digest": "sha256:1",
        }
        OpenAIEmbedded.model_validate(answer)
        self.answer(self.server.status, answer)

    def answer(self, status: int, body: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    chart: ChartUnderTest, url: str, secrets: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command of the rendered pod against ``url``, with ``secrets`` by name/key."""
    settings = {"gate.keySecret.name": "asker"} if secrets else {}
    (container,) = chart.render(settings).get("Pod")["spec"]["containers"]
    variables = {}
    for name, value in environment({"env": [], **container}).items():
        of = value["secretKeyRef"]
        variables[name] = (secrets or {})[f"{of['name']}/{of['key']}"]
    program, *arguments, address = container["command"]
    assert (program, address) == ("python", "http://demo-ptft:80")
    command = [sys.executable, *arguments, url]
    variables["http_proxy"] = "http://127.0.0.1:9"  # nobody listens there
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables)


def test_a_good_answer(ptft_chart: ChartUnderTest, service: Service) -> None:
    service.refusals = 1  # not ready at first
    result = ask(ptft_chart, service.url)
    assert (result.returncode, result.stderr) == (0, "")
    assert "ready, 2 dimensions, model sha256:1" in result.stdout
    assert service.asked == [("/v1/embeddings", {"input": ["a red circle"]})]


@pytest.mark.parametrize("embedding", [[0.5, 0.5], [float("nan"), 0.0], []])
def test_a_wrong_embedding(
    ptft_chart: ChartUnderTest, service: Service, embedding: list[float]
) -> None:
    service.embedding = embedding
    result = ask(ptft_chart, service.url)
    assert result.returncode == 1
    assert "expected 1" in result.stderr


def test_an_error(ptft_chart: ChartUnderTest, service: Service) -> None:
    service.status = 500
    result = ask(ptft_chart, service.url)
    assert result.returncode == 1
    assert "/v1/embeddings: HTTP Error 500" in result.stderr


def test_a_key_where_the_service_asks_for_one(ptft_chart: ChartUnderTest, service: Service) -> None:
    result = ask(ptft_chart, service.url, {"asker/key": "ptft_abc\n"})
    assert (result.returncode, result.stderr) == (0, "")
    service.status = 401
    result = ask(ptft_chart, service.url)
    assert result.returncode == 1
    assert "HTTP Error 401" in result.stderr and "gate.keySecret names the Secret" in result.stderr
    assert service.keys == ["Bearer ptft_abc", None]
