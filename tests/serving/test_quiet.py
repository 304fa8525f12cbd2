"""Nothing leaves the machine: from the start of a service to its end, and in its pages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.conftest import Client
from tests.serving.server import REPO, TARGET
from tests.support.alone import alone, namespace


@pytest.mark.parametrize("target", [TARGET, ""], ids=["bentoml serve", "python -m serving"])
def test_a_service_reaches_nobody(folder: Path, tmp_path: Path, target: str) -> None:
    seen = tmp_path / "seen"
    command = [sys.executable, "-m", "tests.serving.whole_life", folder, tmp_path, target]
    done = subprocess.run(
        alone(seen, [str(word) for word in command]), cwd=REPO, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "200 200 200 200 422"
    assert "/docs 200" in done.stdout
    assert seen.read_text() == ""


@pytest.mark.parametrize("hook", [False, True], ids=["namespace", "audit hook"])
def test_an_attempt_would_be_seen(tmp_path: Path, hook: bool) -> None:
    if not hook and not namespace():
        pytest.skip("no network namespace may be made here")
    code = (
        "import socket, contextlib\n"
        "for reach in (socket.create_connection, socket.getaddrinfo):\n"
        "    for host in ('192.0.2.1', 'ptft.invalid', '127.0.0.1', 'localhost'):\n"
        "        with contextlib.suppress(OSError):\n"
        "            reach(*((host, 9), 0.5) if reach is socket.create_connection else (host, 9))\n"
    )
    seen = tmp_path / "seen"
    subprocess.run(alone(seen, [sys.executable, "-c", code], hook=hook), check=True)
    told = seen.read_text()
    assert "192.0.2.1" in told
    assert "ptft.invalid" in told
    assert not {"127.0.0.1:9", "localhost"} & set(re.split(r"[\s,]+", told))


def test_the_reference_loads_nothing(client: Client) -> None:
    with client() as ask:
        answer = ask.get("/docs")
        document = ask.get("/openapi.json").json()
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|https?:", answer.text)
    for path, operations in document["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code></h2>" in answer.text
    assert "results[].embedding" in answer.text
