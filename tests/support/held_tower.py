"""An image tower that is held until it is let go, and a caller of the app who can leave."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from ptft.onnx.model import OnnxModel


class Gate:
    """Holds the image tower until it is opened; counts what it is given."""

    def __init__(self) -> None:
        self.given = 0
        self.open = threading.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate, encode = Gate(), OnnxModel.encode_images

    def held(self: OnnxModel, images: Any) -> Any:
        if threading.current_thread().name.startswith("ptft-image"):
            gate.given += len(images)
            assert gate.open.wait(30)
        return encode(self, images)

    monkeypatch.setattr(OnnxModel, "encode_images", held)
    yield gate
    gate.open.set()


class Caller:
    """A client that can leave, on the app itself."""

    def __init__(self, app: FastAPI, body: bytes, path: str = "/v1/embed/image") -> None:
        self.left = asyncio.Event()
        self.status = 0
        self._sent = False
        self._body = body
        headers = [(b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "server": ("here", 80),
            "client": ("there", 1),
            "scheme": "http",
            "root_path": "",
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
