"""``ptft.client`` against a running service, and against one that is busy."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptft.artifact import ModelInfo
from ptft.client import AsyncServiceClient, ServiceClient
from ptft.errors import (
    ServiceBusyError,
    ServiceError,
    ServiceRefusedError,
    ServiceUnreachableError,
)
from ptft.model import DualEncoder
from tests.serving.conftest import checkpoint_images, checkpoint_texts
from tests.serving.server import Server, free_port

TEXTS = [f"a photo of {number}" for number in range(200)]


def test_all_that_can_be_asked(
    server: Server, model: DualEncoder, info: ModelInfo, pictures: list[bytes], tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(pictures[1])
    sent = [pictures[0], file, b"no picture", str(file)]
    expected = checkpoint_images(model, pictures[:2])
    with ServiceClient(server.url) as service:
        about = service.model()
        images = service.embed_pictures(sent)
        texts = service.embed_texts(TEXTS)
        none = service.embed_texts([])
        bad = service.embed_pictures([b"no"])
        classes = service.classify(sent, top_k=2)
        zero_shot = service.classify(sent[:1], labels=["cat", "dog"], templates=["a {}"])
        scores = service.similarity(sent, TEXTS[:2])
        ranked = service.rerank(TEXTS[0], [TEXTS[1], TEXTS[0], pictures[0], file], top_n=2)
    assert (about.name, about.digest, about.dim) == (info.name, info.digest, info.embed_dim)
    assert about.classes == tuple(info.classes)
    rows = expected[[0, 1, 1]]
    np.testing.assert_allclose(images.rows[[0, 1, 3]], rows, rtol=0, atol=1e-5)
    assert np.isnan(images.rows[2]).all()
    assert list(images.failed) == [2]
    assert "not a picture" in images.failed[2]
    assert images.digest == info.digest
    np.testing.assert_allclose(texts.rows, checkpoint_texts(model, TEXTS), rtol=0, atol=1e-5)
    assert none.rows.shape == (0, 0)
    assert list(bad.failed) == [0]
    assert [len(one.classes) for one in classes] == [2, 2, 0, 2]
    assert "not a picture" in classes[2].failed
    assert {label for label, _ in zero_shot[0].classes} == {"cat", "dog"}
    cosines = rows @ checkpoint_texts(model, TEXTS[:2]).T
    np.testing.assert_allclose(scores.cosines[[0, 1, 3]], cosines, rtol=0, atol=1e-5)
    assert scores.scores.shape == (4, 2)
    assert list(scores.failed) == [2]
    assert (ranked[0].index, len(ranked)) == (1, 2)
    assert ranked[0].score == pytest.approx(1, abs=1e-5)


def test_the_same_for_asyncio(server: Server, model: DualEncoder, pictures: list[bytes]) -> None:
    async def run() -> list[Any]:
        async with AsyncServiceClient(server.url, batch=3) as service:
            return [
                await service.model(),
                await service.embed_pictures(pictures),
                await service.embed_texts(TEXTS[:7]),
                await service.classify(pictures, labels=["cat", "dog"]),
                await service.similarity(pictures, TEXTS[:2]),
                await service.rerank("a", TEXTS[:2]),
            ]

    _, images, texts, classes, scores, ranked = asyncio.run(run())
    np.testing.assert_allclose(images.rows, checkpoint_images(model, pictures), rtol=0, atol=1e-5)
    np.testing.assert_allclose(texts.rows, checkpoint_texts(model, TEXTS[:7]), rtol=0, atol=1e-5)
    assert len(classes) == 6
    assert scores.cosines.shape == (6, 2)
    assert len(ranked) == 2


def test_what_is_wrong_is_typed(server: Server, pictures: list[bytes]) -> None:
    with ServiceClient(server.url) as service:
        with pytest.raises(ServiceRefusedError, match="the same label twice") as refused:
            service.classify(pictures, labels=["a", "a"])
        with pytest.raises(TypeError, match=r"pictures\[0\]: int"):
            service.embed_pictures([3])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="2 pictures and 1 texts"):
            service.classify(pictures[:2], ["a"])
    assert (refused.value.status, refused.value.param) == (422, "labels")
    assert refused.value.request_id
    nobody = f"http://127.0.0.1:{free_port()}"
    with (
        ServiceClient(nobody, retries=1, timeout=5) as service,
        pytest.raises(ServiceUnreachableError, match="ConnectError"),
    ):
        service.model()


class Busy(BaseHTTPRequestHandler):
    """A service that is busy at first, takes two items at most, and then answers."""

    refusals: list[tuple[int, dict[str, str]]] = []
    digests: list[str] = ["sha256:1"]
    times: list[float] = []
    together = 0
    most_together = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.lock:
            Busy.times.append(time.monotonic())
            Busy.together += 1
            Busy.most_together = max(Busy.most_together, Busy.together)
            refusal = Busy.refusals.pop(0) if Busy.refusals else None
            digest = Busy.digests.pop(0) if len(Busy.digests) > 1 else Busy.digests[0]
        time.sleep(0.05)
        with self.lock:
            Busy.together -= 1
        count = len(body["texts"])
        if refusal is not None:
            self.answer(refusal[0], {"error": {"code": "queue_full", "message": "b"}}, refusal[1])
        elif count > 2:
            self.answer(413, {"error": {"code": "too_many_items", "message": "at most 2"}}, {})
        else:
            row = {"embedding": "AACAPw=="}  # 1.0
            results = [{"index": index, **row} for index in range(count)]
            self.answer(200, {"digest": digest, "results": results}, {})

    def answer(self, status: int, values: object, headers: dict[str, str]) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def busy(refusals: list[tuple[int, dict[str, str]]], *digests: str) -> Iterator[str]:
    Busy.refusals, Busy.digests = refusals, list(digests) or ["sha256:1"]
    Busy.times.clear()
    Busy.most_together = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_retry_after_is_waited_for() -> None:
    refusals = [(429, {"retry-after": "1"}), (503, {"retry-after": "0"})]
    with busy(refusals) as url, ServiceClient(url) as service:
        found = service.embed_texts(["a"])
    assert found.rows.tolist() == [[1.0]]
    assert len(Busy.times) == 3
    assert Busy.times[1] - Busy.times[0] >= 1


def test_the_same_of_both_for_asyncio() -> None:
    async def run(url: str) -> Any:
        async with AsyncServiceClient(url, batch=8, connections=4) as service:
            return await service.embed_texts([str(number) for number in range(32)])

    refusals = [(429, {"retry-after": "1"})] * 4
    with busy(refusals) as url:
        found = asyncio.run(run(url))
    assert found.rows.shape == (32, 1)
    assert 1 < Busy.most_together <= 4
    assert len(Busy.times) == 4 + 4 * (1 + 2 + 4)
    assert Busy.times[4] - Busy.times[0] >= 1


def test_a_service_that_stays_busy_is_let_be() -> None:
    for retries, timeout, header, asked in ((2, 30.0, "0", 3), (9, 1.0, "30", 1)):
        refusals = [(429, {"retry-after": header})] * 9
        with (
            busy(refusals) as url,
            ServiceClient(url, retries=retries, timeout=timeout) as service,
            pytest.raises(ServiceBusyError, match="429: b"),
        ):
            service.embed_texts(["a"])
        assert len(Busy.times) == asked


def test_lists_are_cut_to_what_the_service_takes_and_go_side_by_side() -> None:
    with busy([]) as url, ServiceClient(url, batch=8, connections=4) as service:
        found = service.embed_texts([str(number) for number in range(32)])
    assert found.rows.shape == (32, 1)
    assert 1 < Busy.most_together <= 4
    assert len(Busy.times) == 4 * (1 + 2 + 4)


def test_answers_of_two_models_are_no_answer() -> None:
    with (
        busy([], "sha256:1", "sha256:2") as url,
        ServiceClient(url, batch=1) as service,
        pytest.raises(ServiceError, match="several models"),
    ):
        service.embed_texts(["a", "b"])


def test_it_is_imported_without_the_rest() -> None:
    program = (
        "import sys, ptft.client; "
        "print(sorted({'torch', 'onnxruntime', 'transformers', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_digest_is_asked_for_until_a_pod_has_it(server: Server, info: ModelInfo) -> None:
    other = f"sha256:{'0' * 64}"
    with ServiceClient(server.url, digest=info.digest) as service:
        assert service.embed_texts(["a"]).digest == info.digest
    with (
        ServiceClient(server.url, digest=other, retries=1) as service,
        pytest.raises(ServiceBusyError, match=f"{other} is not served here") as raised,
    ):
        service.embed_texts(["a"])
    assert (raised.value.status, raised.value.code) == (421, "other_model")
    assert raised.value.param == "ptft-model-digest"
