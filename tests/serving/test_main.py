"""``python -m serving``: the same app without BentoML, a worker that is kept, and the door."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from onnxruntime import get_available_providers

from ptft.artifact import ModelInfo
from serving.door import PROBES
from tests.serving.server import REPO, Server, free_port, serve_plain


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving", *arguments]
    given = {name: value for name, value in os.environ.items() if not name.startswith("PTFT_")}
    return subprocess.run(
        command, cwd=REPO, env={**given, **variables}, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running ``python -m serving``."""
    home = tmp_path_factory.mktemp("plain")
    with serve_plain(home, {"PTFT_MODEL": str(folder), "PTFT_THREADS": "1"}) as server:
        yield server


def test_the_same_app(plain: Server, info: ModelInfo) -> None:
    answer = httpx.post(f"{plain.url}/v1/embed/text", json={"texts": ["a cat"]})
    assert answer.json()["digest"] == info.digest
    assert httpx.get(f"{plain.url}/livez").status_code == 200


def test_every_refusal_has_one_shape_and_an_id(plain: Server) -> None:
    given = {"x-request-id": "an-id.of-mine/1"}
    with httpx.Client(base_url=plain.url, headers=given) as ask:
        answers = {
            404: ask.get("/v2/nothing"),
            405: ask.get("/v1/embed/text"),
            415: ask.post("/v1/embed/text", content=b"x"),
            422: ask.post("/v1/embeddings", json={"input": "a", "dimensions": 3}),
        }
        for status, answer in answers.items():
            error = answer.json()["error"]
            assert answer.status_code == status
            assert set(error) == {"type", "code", "message", "param", "request_id"}
            assert error["request_id"] == answer.headers["x-request-id"] == given["x-request-id"]
        assert answers[405].headers["allow"] == "POST"
        assert answers[422].json()["error"]["param"] == "dimensions"
        for path, status in {"/v1/model": 200, "/v1/embed/text": 405, "/nothing": 404}.items():
            answer = ask.head(path)
            assert (answer.status_code, answer.content) == (status, b"")
            assert answer.headers["content-type"] == "application/json"
        strange = ask.get("/v1/model", headers={"x-request-id": "a\tb"}).headers["x-request-id"]
        assert len(strange) == 32 and strange.isalnum()


def test_while_no_worker_accepts_it_says_so_at_once_and_starts_another(plain: Server) -> None:
    first = plain.worker()
    os.kill(first, signal.SIGKILL)
    refused, body, named = [], {"texts": ["a"] * 64}, {"x-request-id": "mine"}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(f"{plain.url}/v1/embed/text", json=body, headers=named, timeout=20)
            head = httpx.head(f"{plain.url}/v1/model", timeout=20)
        except httpx.TransportError:  # a connection that the dead worker held
            continue
        if answer.status_code == 200:
            break
        refused.append(answer)
        assert head.content == b""
    assert answer.status_code == 200
    assert plain.worker() != first
    said = {one.json()["error"]["message"] for one in refused}
    assert "no worker accepts; one is being started" in said
    assert {one.status_code for one in refused} == {503}
    assert {one.headers["retry-after"] for one in refused} == {"1"}
    assert {one.headers["x-request-id"] for one in refused} == {"mine"}
    assert {one.json()["error"]["request_id"] for one in refused} == {"mine"}


def test_where_it_is_told_to_wait_the_next_worker_answers_what_came_meanwhile(
    folder: Path, tmp_path: Path
) -> None:
    variables = {"PTFT_MODEL": str(folder), "PTFT_THREADS": "1", "PTFT_HOLD_S": "60"}
    body = {"texts": ["a", "b"]}
    with serve_plain(tmp_path, variables) as waiting, ThreadPoolExecutor(4) as pool:
        first = waiting.worker()
        os.kill(first, signal.SIGKILL)
        asked = [pool.submit(_post, waiting.url, body) for _ in range(4)]
        told = set()
        while not all(one.done() for one in asked):
            for path in PROBES:
                with contextlib.suppress(httpx.TransportError):  # what the dead worker had accepted
                    answer = httpx.get(f"{waiting.url}{path}", timeout=20)
                    if answer.status_code == 503 and "no worker accepts" in answer.text:
                        told.add(path)
        assert told == PROBES  # at once, so that nobody sends more
        assert [one.result().status_code for one in asked] == [200] * 4
        assert waiting.worker() != first


def _post(url: str, body: dict[str, list[str]]) -> httpx.Response:
    """Two requests on one connection; the second's answer."""
    with httpx.Client(base_url=url, timeout=60) as client:
        client.post("/v1/embed/text", json=body).raise_for_status()
        return client.post("/v1/embed/text", json=body)


def test_a_wrong_setting_is_one_line() -> None:
    done = run(PTFT_PRECISION="fp61")
    assert done.returncode == 2
    assert done.stderr == "ptft: PTFT_PRECISION=fp61: did you mean 'fp16'?\n"


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("--port", port)
    assert done.returncode == 1
    assert done.stderr.startswith(f"ptft: --host 127.0.0.1 --port {port}: ")
    assert done.stderr.count("\n") == 1


def test_a_model_that_cannot_be_served_ends_it(tmp_path: Path) -> None:
    done = run("--port", str(free_port()), PTFT_MODEL=str(tmp_path / "none"))
    assert done.returncode == 1
    assert f"PTFT_MODEL={tmp_path / 'none'}: no such folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif("CUDAExecutionProvider" in get_available_providers(), reason="there is one")
def test_a_provider_that_is_not_there_is_one_line(folder: Path) -> None:
    done = run("--port", str(free_port()), PTFT_MODEL=str(folder), PTFT_PROVIDER="cuda")
    assert done.returncode == 1
    assert "the model cannot be served: provider cuda: onnxruntime" in done.stderr
    assert "allowed: cpu, auto; pip install onnxruntime-gpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_app_needs_no_bentoml() -> None:
    code = "import serving.routes, serving.worker, serving.__main__, sys; print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "fastapi" in told
    assert not {"bentoml", "_bentoml_sdk", "torch", "circus", "opentelemetry.sdk"} & set(told)
