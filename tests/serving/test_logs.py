"""What a session writes: objects of JSON with the ids of requests, and never what a client sent."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.keys import make_key
from tests.serving.server import Server, serve, serve_plain

SENT = "a sentence that nobody else is to read"
TRIED = "ptft_a-key-that-nobody-has"


@pytest.fixture(scope="module")
def keyed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """``python -m serving`` with a key, JSON lines and an access log; and the key."""
    home = tmp_path_factory.mktemp("keyed")
    secret, key = make_key("mobile")
    (home / "keys").write_text(f"{key.line()}\n")
    settings = {
        "PTFT_MODEL": str(folder),
        "PTFT_THREADS": "1",
        "PTFT_KEYS_FILE": str(home / "keys"),
        "PTFT_LOG_FORMAT": "json",
        "PTFT_ACCESS_LOG": "on",
    }
    with serve_plain(home, settings) as server:
        yield server, secret


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def test_every_line_is_an_object_and_no_secret_is_in_any(keyed: tuple[Server, str]) -> None:
    server, secret = keyed
    headers = {"authorization": f"Bearer {secret}", "x-request-id": "id-of/mine"}
    body = {"texts": [SENT]}
    with httpx.Client(base_url=server.url) as ask:
        assert ask.post("/v1/embed/text", json=body, headers=headers).status_code == 200
        for tried in ({"x-api-key": TRIED}, {"authorization": f"Basic {secret}"}, {}):
            answer = ask.post(f"/v1/embed/text?api_key={secret}", json=body, headers=tried)
            assert answer.status_code == 401
        echo = {"x-request-id": secret, "x-api-key": secret}
        assert ask.get("/v1/model", headers=echo).status_code == 200
        assert ask.post("/v1/embed/text", json={"key": secret}, headers=headers).status_code == 422
        assert ask.get("/v1/%0Anew%1B[31mline", headers=headers).status_code == 404
    found = lines(server)
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, found))
    access = [line for line in found if line["logger"] == "bentoml.ptft.access"]
    (answered,) = [
        line for line in access if line["path"] == "/v1/embed/text" and line["status"] == 200
    ]
    assert (answered["key"], answered["request_id"]) == ("mobile", "id-of/mine")
    assert answered["seconds"] > 0 and answered["bytes"] > 100
    refused = [line["reason"] for line in access if line["status"] == 401]
    assert refused == ["wrong_key", "no_key", "no_key"]
    assert len({line["request_id"] for line in access if line["status"] == 401}) == 3
    log = server.log.read_text()
    for private in (secret, TRIED, SENT, "\x1b"):
        assert private not in log


def test_a_worker_that_finds_no_keys_says_so_and_lets_nobody_in(
    keyed: tuple[Server, str],
) -> None:
    server, secret = keyed
    file = server.log.parent / "keys"
    good = file.read_text()
    file.write_text("half a li")
    os.kill(server.worker(), signal.SIGKILL)
    wait(lambda: "line 1: half: allowed: NAME sha256:" in server.log.read_text())
    answer = httpx.get(f"{server.url}/v1/model", headers={"x-api-key": secret})
    assert answer.status_code == 503
    file.write_text(good)
    wait(lambda: httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200)
    answer = httpx.get(f"{server.url}/v1/model", headers={"x-api-key": secret})
    assert answer.status_code == 200
    assert "Traceback" not in server.log.read_text()


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):  # what the dead worker held
            if condition():
                return
        time.sleep(0.1)
    raise AssertionError("it did not come about")


def test_bentoml_logs_the_same(folder: Path, tmp_path: Path) -> None:
    """Its supervisor's lines and the worker's."""
    settings = {"PTFT_MODEL": str(folder), "PTFT_LOG_FORMAT": "json", "PTFT_ACCESS_LOG": "on"}
    with serve(tmp_path, settings) as server:
        assert httpx.get(f"{server.url}/v1/model").status_code == 200
    found = lines(server)
    told = [line["message"] for line in found]
    assert [one for one in told if one.startswith("open to everybody")] == [
        "open to everybody: no API keys (PTFT_KEYS_FILE, PTFT_KEYS)"
    ]
    assert "GET /v1/model 200" in told
    assert any("BentoServer" in one for one in told)
