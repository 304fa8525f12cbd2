"""Clients of the service, and how far from the checkpoint what they are answered is."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptft.client import AsyncServiceClient, ServiceClient
from tests.clients.http_run import HTTP_CLIENTS

__all__ = ["HTTP_CLIENTS", "HTTP_ENVIRONMENT", "HTTP_SETTINGS", "TEXTS", "Answered", "Asking"]

HTTP_ENVIRONMENT = "http_clients"
ALIAS, CUT = "text-embedding-3-small", 8
HTTP_SETTINGS = {"PTFT_ALIASES": f"{ALIAS},shoes", "PTFT_DIMENSIONS": str(CUT), "PTFT_THREADS": "1"}
"""Of the service that the clients ask."""

TEXTS = ["a photo of a cat", "café 🐈 naïve", "a red circle", "the last of five", "very long " * 60]


@dataclass(frozen=True)
class Answered:
    """What a client was answered, against the checkpoint.

    Attributes:
        text, image: largest difference of an entry of an embedding; None where it has none.
        error: why there is nothing.
    """

    text: float | None = None
    image: float | None = None
    error: str | None = None

    @property
    def good(self) -> bool:
        """As the checkpoint, within what a tower may differ."""
        return self.error is None and all((one or 0.0) <= 1e-5 for one in (self.text, self.image))


class Asking:
    """A service, what it is asked, and what it should answer.

    Args:
        url: of the service, started with ``HTTP_SETTINGS``.
        model: its name, and its dimensions.
        texts, images: the checkpoint's own embeddings, float32 (N, D).
        pictures: of the images, PNG.
        work: a folder.
    """

    def __init__(
        self,
        url: str,
        model: tuple[str, int],
        texts: NDArray[np.float32],
        images: NDArray[np.float32],
        pictures: Sequence[bytes],
        work: Path,
    ) -> None:
        self.url, self._out = url, work
        self._expected = {"text": texts, "image": images}
        paths = [work / f"{number}.png" for number in range(len(pictures))]
        for path, data in zip(paths, pictures, strict=True):
            path.write_bytes(data)
        self._job: dict[str, Any] = {
            "url": url,
            "model": model[0],
            "alias": ALIAS,
            "dim": model[1],
            "cut": CUT,
            "texts": TEXTS,
            "pictures": [str(path) for path in paths],
            "out": str(work),
        }

    def run(self, clients: Sequence[str], environment: Path) -> dict[str, Answered]:
        """Let clients of an environment ask, one after another."""
        job = self._out / "job.json"
        job.write_text(json.dumps({**self._job, "clients": list(clients)}))
        script = Path(__file__).with_name("http_run.py")
        subprocess.run([environment / "bin" / "python", script, job], check=True)
        return {name: self._judge(name) for name in clients}

    def run_text(self, text: str, environment: Path) -> str:
        """What a piece of Python prints that asks ``localhost:3000`` about ``picture.jpg``."""
        Image.open(self._job["pictures"][0]).save(self._out / "picture.jpg")
        text = text.replace("http://localhost:3000", self.url)
        command = [environment / "bin" / "python", "-c", text]
        done = subprocess.run(command, cwd=self._out, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ours(self) -> Answered:
        """``ptft.client``, which needs no environment of its own."""
        with ServiceClient(self.url, batch=2) as service:
            texts = service.embed_texts(TEXTS).rows
            images = service.embed_pictures(self._job["pictures"]).rows
        return Answered(self._apart(texts, "text"), self._apart(images, "image"))

    async def ours_async(self) -> Answered:
        """The same for asyncio."""
        async with AsyncServiceClient(self.url, batch=2) as service:
            texts = (await service.embed_texts(TEXTS)).rows
            found = await service.embed_pictures(self._job["pictures"])
        return Answered(self._apart(texts, "text"), self._apart(found.rows, "image"))

    def _judge(self, name: str) -> Answered:
        error = self._out / f"{name}.error"
        if error.is_file():
            return Answered(error=error.read_text())
        found = {}
        for which in self._expected:
            path = self._out / f"{name}.{which}.npy"
            if path.is_file():
                found[which] = self._apart(np.load(path), which)
        return Answered(**found)

    def _apart(self, rows: NDArray[np.float32], which: str) -> float:
        """Infinite where the shapes differ or a row is missing."""
        expected = self._expected[which]
        if rows.shape != expected.shape or not np.isfinite(rows).all():
            return float("inf")
        return float(np.abs(rows - expected).max())
