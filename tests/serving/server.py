"""A real ``bentoml serve`` for a test."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

REPO = Path(__file__).resolve().parents[2]
TARGET = "serving.service:Ptft"
_START_S = 120
_WORKERS = ("_bentoml_impl.worker.service", "-m serving.worker")


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def worker(self) -> int:
        """Process id of the worker that answers."""
        out = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        (line,) = [line for line in out.splitlines() if any(name in line for name in _WORKERS)]
        return int(line.split()[0])

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def environment(home: Path, settings: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PTFT_")}
    return {**kept, "BENTOML_HOME": str(home / "bentoml"), **settings}


def command(target: str, port: int, options: Sequence[str] = ()) -> list[str]:
    program = Path(sys.executable).with_name("bentoml")
    return [str(program), "serve", target, "--host", "127.0.0.1", "--port", str(port), *options]


@contextmanager
def serve(
    home: Path,
    settings: Mapping[str, str],
    *,
    target: str = TARGET,
    cwd: Path = REPO,
    options: Sequence[str] = (),
) -> Iterator[Server]:
    """Start, wait until it is ready, and stop."""
    port = free_port()
    log = home / f"serve-{port}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command(target, port, options),
            cwd=cwd,
            env=environment(home, settings),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_ready(server.url, process, log)
        yield server
    finally:
        if process.poll() is None:
            server.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def serve_plain(home: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """The same of ``python -m serving``."""
    port = free_port()
    log = home / f"plain-{port}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "--port", str(port)],
            cwd=REPO,
            env=environment(home, settings),
            stdout=stream,
            stderr=stream,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_ready(server.url, process, log)
        yield server
    finally:
        process.terminate()
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()


def wait_until_ready(client: httpx.Client) -> None:
    """Wait for the app itself, where BentoML's ``/readyz`` is not around it."""
    deadline = time.monotonic() + _START_S
    while client.get("/v1/model").status_code == 503:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready after {_START_S} s:\n{log.read_text()}")
