"""What the bench of the service asks: pictures of several sizes, and services of other kinds."""

import base64
import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tests.bench._client import Client, post
from tests.clients.environments import cache_folder, find
from tests.serving.attacks import BOUNDARY, form
from tests.serving.server import environment, free_port

__all__ = ["LITSERVE", "PHOTOS", "SMALL", "Service", "Turning", "others", "picture"]

SMALL = (640, 480)
PHOTOS = ((4032, 3024), (1600, 1200), SMALL)
"""A phone's own photograph, one that a messenger has passed on, a picture of a web page; as many of
each."""

LITSERVE = "litserve"  # its pins: tests/clients/litserve.txt
HERE = Path(__file__).parent
_START_S = 120


def picture(size: tuple[int, int] = SMALL) -> bytes:
    """A JPEG with the detail of a photograph, a fifth of a byte a pixel."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


class Turning(Client):
    """A client whose requests take turns."""

    def __init__(self, url: str, requests: Sequence[bytes]) -> None:
        super().__init__(url, requests[0])
        self._turns = itertools.cycle(requests)

    def next_request(self) -> bytes:
        return next(self._turns)


@dataclass(frozen=True)
class Service:
    """One that runs, and how it is asked for pictures.

    Attributes:
        name: of it.
        pid: of its first process.
        url: where it is.
    """

    name: str
    pid: int
    url: str

    def request(self, data: bytes) -> bytes:
        """Of one picture."""
        if self.name == LITSERVE:
            body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
            return post("/predict", "application/json", body)
        if self.name == "bentoml":
            whole = form([data]).replace(
                b'filename="f"', b'filename="f"\r\ncontent-type: image/jpeg'
            )
            return post("/embed", f"multipart/form-data; boundary={BOUNDARY}", whole)
        return post("/v1/embed/image", "image/jpeg", data)

    def embedding(self, data: bytes) -> NDArray[np.float64]:
        """Of one picture, of length 1."""
        head, _, body = self.request(data).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        found: Any = httpx.post(
            self.url + first.split()[1], content=body, headers=headers, timeout=60
        ).json()
        if isinstance(found, dict):
            found = found["embedding"] if "embedding" in found else found["results"][0]["embedding"]
        row = np.array(found, np.float64).reshape(-1)
        return row / np.linalg.norm(row)


@contextlib.contextmanager
def _running(words: list[str], home: Path, url: str, ready: str, **more: str) -> Iterator[int]:
    """A peer's service, once it answers; its process."""
    log = (home / f"{Path(words[-1]).name}.log").open("wb")
    variables = {**environment(home, more), "PYTHONPATH": f"{HERE.parents[1]}:{HERE}"}
    process = subprocess.Popen(
        words, env=variables, stdout=log, stderr=log, cwd=HERE, start_new_session=True
    )
    try:
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}{ready}", timeout=5).status_code == 200:
                    break
            assert process.poll() is None and time.monotonic() < deadline, log.name
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:  # LitServe leaves processes behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        log.close()


def others(folder: Path, home: Path, stack: contextlib.ExitStack) -> list[Service]:
    """The peers that are here, each as its documentation has it."""
    found = []
    lit = find(LITSERVE, cache_folder())
    if lit is not None:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        words = [str(lit / "bin" / "python"), str(HERE / "_litserve.py"), str(folder), str(port)]
        pid = stack.enter_context(_running(words, home, url, "/health"))
        found.append(Service(LITSERVE, pid, url))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).with_name("bentoml"))
    words = [program, "serve", "_bento:Embed", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"BENTOML_DO_NOT_TRACK": "true", "BENCH_FOLDER": str(folder)}
    pid = stack.enter_context(_running(words, home, url, "/readyz", **quiet))
    found.append(Service("bentoml", pid, url))
    return found
