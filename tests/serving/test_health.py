"""Readiness is an inference; what hangs or only fails is known, and ends the process."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ptft.onnx.model import OnnxModel
from serving import health
from serving.health import EXIT_CODE, Health
from serving.settings import Settings
from serving.state import State
from tests.serving.conftest import Client
from tests.serving.running import started, until


class Tower:
    """An image tower that can be made to fail or to hang; counts its batches."""

    def __init__(self) -> None:
        self.batches = 0
        self.fails = False
        self.hangs = threading.Event()
        self.hangs.set()


@pytest.fixture
def tower(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tower]:
    tower, encode = Tower(), OnnxModel.encode_images

    def watched(self: OnnxModel, images: Any) -> Any:
        tower.batches += 1
        if tower.fails:
            raise RuntimeError("a fault made on purpose")
        if threading.current_thread().name.startswith("ptft-image"):
            assert tower.hangs.wait(30)
        return encode(self, images)

    monkeypatch.setattr(OnnxModel, "encode_images", watched)
    yield tower
    tower.hangs.set()


def test_ready_is_an_inference_and_one_is_enough_for_a_while(
    client: Client, tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_S", 60.0)  # however slow the machine is
    with client(max_batch=8) as ask:
        before = tower.batches
        assert [ask.get("/readyz").status_code for _ in range(3)] == [200] * 3
        assert tower.batches == before + 1
        assert ask.head("/readyz").status_code == 200


def test_not_ready_while_batches_fail(client: Client, tower: Tower) -> None:
    with client(max_batch=8) as ask:
        assert ask.get("/readyz").status_code == 200
        tower.fails = True
        assert ask.post("/v1/embed/image", content=b"x", headers={"content-type": "image/png"})
        answer = ask.get("/readyz")
        while answer.status_code == 200:  # until the last proof is too old
            time.sleep(0.1)
            answer = ask.get("/readyz")
        assert answer.json()["error"]["type"] == "not_ready"
        assert answer.headers["retry-after"] == "1"
        assert ask.get("/livez").status_code == 200
        tower.fails = False
        for _ in range(20):  # each asks for an inference within PATIENCE_S
            if (answer := ask.get("/readyz")).status_code == 200:
                break
        assert answer.status_code == 200


def test_not_ready_while_an_inference_hangs(
    client: Client, tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE_S", 0.3)
    with client(max_batch=8) as ask:
        tower.hangs.clear()
        answer = ask.get("/readyz")
        assert answer.status_code == 503
        assert "no inference within" in answer.json()["error"]["message"]
        tower.hangs.set()


@pytest.mark.parametrize("how", ["hangs", "fails"])
def test_what_hangs_or_only_fails_ends_the_process(
    folder: Path, tower: Tower, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    with_end: Callable[..., Health] = lambda *given: Health(*given, end=ended.append)  # noqa: E731
    monkeypatch.setattr("serving.state.Health", with_end)

    async def play() -> None:
        async with started(Settings(model=folder, hang_s=1.0)) as (_, state):
            while await state.health.reason_not_ready():  # a busy machine has no inference in time
                pass
            tower.fails = how == "fails"
            if how == "hangs":
                tower.hangs.clear()
                assert state.encoder is not None
                # what a batch may take is a multiple of the longest, which a busy machine stretches
                state.encoder.images.longest = state.encoder.texts.longest = 0.1
            first = asyncio.ensure_future(ask(state))
            await until(lambda: bool(ended))
            assert ended == [EXIT_CODE]
            await until(lambda: bool(state.health.reason_not_alive()))
            tower.hangs.set()
            await asyncio.gather(first, return_exceptions=True)

    async def ask(state: State) -> Any:
        assert state.encoder is not None
        size = (*state.encoder.model.preprocess.size, 3)
        ticket = state.admission.open()
        return await state.encoder.embed(ticket, health.np.zeros(size, "uint8"))

    asyncio.run(play())


def test_an_event_loop_that_stands_still_ends_the_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("serving.state.Health", lambda *given: Health(*given, end=ended.append))

    async def play() -> None:
        async with started(Settings(model=folder, hang_s=1.0)):
            for _ in range(100):
                time.sleep(0.1)  # what no coroutine should do
                if ended:
                    break
            assert ended == [EXIT_CODE]

    asyncio.run(play())
