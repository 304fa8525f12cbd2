"""What the service does with each attack: what it refuses, counts, cancels and gives back.

Nothing is timed: costs are what was charged, work is what began.
"""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ptft.onnx.model import OnnxModel
from ptft.preprocess import TextTokenizer
from serving.pictures import Pictures
from serving.settings import Settings
from serving.state import State
from tests.serving import attacks
from tests.serving.conftest import Client
from tests.serving.running import started, until
from tests.support.held_tower import Caller, Gate, gate

__all__ = ["gate"]  # a fixture

JSON = {"content-type": "application/json"}


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is tokenised from here on."""
    seen: list[str] = []
    tokenise = TextTokenizer.__call__

    def watched(self: TextTokenizer, texts: Any) -> Any:
        seen.extend(texts)
        return tokenise(self, texts)

    monkeypatch.setattr(TextTokenizer, "__call__", watched)
    return seen


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures whose decoding begins from here on."""
    seen: list[str] = []
    decode = Pictures.decode

    def watched(self: Pictures, picture: Any) -> Any:
        seen.append(picture.name)
        return decode(self, picture)

    monkeypatch.setattr(Pictures, "decode", watched)
    return seen


def nothing_is_held(state: State) -> bool:
    budgets = (state.admission.items, state.admission.memory, state.admission.work)
    return all(budget.taken == 0 for budget in budgets)


def test_labels_are_counted_before_they_are_written_out(client: Client, prompts: list[str]) -> None:
    with client() as ask:
        before = list(prompts)
        answers = [
            ask.post("/v1/classify", content=body, headers=JSON)
            for body in (
                attacks.expanding_labels(30_000, 200),  # 6 MB of one prompt
                attacks.classification(
                    attacks.small_photo(), ["z" * 15_000], ["{}{}" + f"{n}" for n in range(99)]
                ),
            )
        ]
        assert prompts == before
    for answer in answers:
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "too_many_characters"


def test_labels_are_looked_at_once_a_picture_is_readable(
    client: Client, prompts: list[str]
) -> None:
    with client() as ask:
        body = attacks.classification(b"no picture", attacks.many_labels(500, 60, 1), ["{}"])
        answer = ask.post("/v1/classify", content=body, headers=JSON)
        assert answer.status_code == 422
        assert "not a picture" in answer.json()["results"][0]["error"]["message"]
        assert not any(text.startswith("label 1") for text in prompts)
        good = attacks.classification(attacks.small_photo(), ["label 1 a", "b"], ["{}"])
        assert ask.post("/v1/classify", content=good, headers=JSON).status_code == 200
        assert "label 1 a" in prompts


def test_work_that_no_request_may_have_is_refused(client: Client, prompts: list[str]) -> None:
    with client(max_work_s=0.05) as ask:
        encoder = ask.app.state.serving.encoder  # type: ignore[attr-defined]
        encoder.texts.best_seconds_a_unit = 0.01
        body = attacks.classification(
            attacks.small_photo(), attacks.many_labels(100, 60, 2), ["{}"]
        )
        answer = ask.post("/v1/classify", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_costly")
        assert not any(text.startswith("label 2") for text in prompts)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (attacks.flat_webp(16), "decoding a webp of 16000x1000 pixels takes"),
        (attacks.flat_jpeg2000(), "format jpeg2000"),
        (attacks.flat_jpeg(6000, 4000, progressive=True), "decoding a jpeg of 6000x4000"),
        (b"\0\0\1\0\1\0\x10\x10" + attacks.uniform_png(9, 9), "not a picture"),
        (b"\0\0\0\x20ftypavif" + bytes(64), "format avif"),
        (b"II*\0" + bytes(64), "format tiff"),
        (attacks.uniform_png(9000, 9000), "9000x9000 pixels; allowed: at most"),
    ],
    ids=["webp", "jpeg2000", "progressive", "icon", "avif", "tiff", "png"],
)
def test_a_picture_that_costs_too_much_is_not_even_opened(
    client: Client, decoded: list[str], data: bytes, why: str
) -> None:
    with client() as ask:
        sent = [data, attacks.small_photo()]
        answer = ask.post("/v1/embed/image", content=attacks.pictures(*sent), headers=JSON)
        refused, answered = answer.json()["results"]
        assert why in refused["error"]["message"]
        assert "embedding" in answered  # the others of its request go on
        assert decoded == ["images[1]"]


def test_a_thin_picture_is_answered_at_the_price_of_its_pixels(client: Client) -> None:
    with client() as ask:
        size = ask.get("/v1/model").json()["image_size"][0]
        body = attacks.pictures(attacks.thin_png(size))
        assert ask.post("/v1/embed/image", content=body, headers=JSON).status_code == 200


def test_a_form_that_is_cut_is_no_form(client: Client, decoded: list[str]) -> None:
    kind = {"content-type": f"multipart/form-data; boundary={attacks.BOUNDARY}"}
    whole = attacks.form([attacks.small_photo(), attacks.small_photo(seed=1)])
    with client() as ask:
        assert len(ask.post("/v1/embed/image", content=whole, headers=kind).json()["results"]) == 2
        done = list(decoded)
        for body in (whole[:-60], whole[: len(whole) // 2], attacks.cut_form(1000)):
            answer = ask.post("/v1/embed/image", content=body, headers=kind)
            assert (answer.status_code, answer.json()["error"]["type"]) == (422, "multipart")
        assert decoded == done


def test_long_texts_are_charged_and_refused_by_their_characters(
    client: Client, prompts: list[str]
) -> None:
    with client(max_characters=100_000) as ask:
        seen = len(prompts)
        answer = ask.post("/v1/embed/text", content=attacks.texts_of_emoji(4, 30_000), headers=JSON)
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_many_characters")
        assert len(prompts) == seen


@pytest.mark.parametrize(
    "body",
    [
        b'{"texts": [' + b"1," * 200_000 + b"1]}",
        b'{"texts": [' + b"[" * 100_000,
        b'{"input": [' + b'{"image": 1},' * 60_000 + b"1]}",
        b'{"texts": ' + json.dumps({f"k{n}": n for n in range(9000)}).encode() + b"}",
    ],
    ids=["numbers", "depth", "objects", "keys"],
)
def test_what_is_wrong_many_times_is_said_once(client: Client, body: bytes) -> None:
    with client() as ask:
        for path in ("/v1/embed/text", "/v1/embeddings", "/v1/classify"):
            answer = ask.post(path, content=body, headers=JSON)
            assert answer.status_code in (413, 422)
            assert len(answer.content) < 1000


def test_a_data_uri_is_looked_for_where_one_begins(client: Client) -> None:
    """A search over the whole of it would take time by the square of its length."""
    text = "data:" + "a" * 3_000_000
    with client() as ask:
        answer = ask.post("/v1/embed/image", json={"images": [text]})
        assert "not base64" in answer.json()["results"][0]["error"]["message"]


def test_who_leaves_takes_the_work_along(folder: Path, gate: Gate) -> None:
    async def play() -> None:
        async with started(Settings(model=folder)) as (app, state):
            body = attacks.pictures(*[attacks.small_photo()] * 8)
            callers = [Caller(app, body) for _ in range(6)]
            await until(lambda: state.encoder is not None and state.encoder.images.waiting > 8)
            for caller in callers:
                caller.left.set()
            await asyncio.gather(*(caller.task for caller in callers))
            assert state.encoder is not None and state.encoder.images.waiting == 0
            assert nothing_is_held(state)
            before = gate.given
            gate.open.set()
            last = Caller(app, attacks.pictures(attacks.small_photo(seed=9)))
            await last.task
            assert last.status == 200
            assert gate.given == before + 1  # of 48 pictures only those that had begun

    asyncio.run(play())


def test_a_deadline_ends_the_work(folder: Path, gate: Gate) -> None:
    async def play() -> None:
        settings = Settings(model=folder, timeout_s=0.5)
        async with started(settings) as (app, state):
            late = Caller(app, attacks.pictures(*[attacks.small_photo()] * 8))
            await late.task
            assert late.status == 504
            assert state.encoder is not None and state.encoder.images.waiting == 0
            assert nothing_is_held(state)
            gate.open.set()

    asyncio.run(play())


def test_labels_that_nobody_waits_for_are_not_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_, rows, encode = threading.Event(), [0], OnnxModel.encode_texts

    def held(self: OnnxModel, tokens: Any) -> Any:
        if threading.current_thread().name.startswith("ptft-text"):
            rows[0] += len(tokens)
            assert open_.wait(30)
        return encode(self, tokens)

    monkeypatch.setattr(OnnxModel, "encode_texts", held)

    async def play() -> None:
        async with started(Settings(model=folder)) as (app, state):
            labels = attacks.many_labels(200, 5, 3)
            body = attacks.classification(attacks.small_photo(), labels, ["{}"])
            callers = [Caller(app, body, "/v1/classify") for _ in range(2)]
            await until(lambda: rows[0] > 0)
            assert state.admission.work.taken > 0
            callers[0].left.set()
            await callers[0].task
            assert state.encoder is not None and state.encoder.texts.waiting > 100  # one waits
            callers[1].left.set()
            await callers[1].task
            await until(lambda: nothing_is_held(state))
            assert state.encoder.texts.waiting == 0
            begun = rows[0]
            open_.set()
            last = Caller(app, b'{"texts": ["a"]}', "/v1/embed/text")
            await last.task
            assert (last.status, rows[0]) == (200, begun + 1)

    asyncio.run(play())


def test_a_large_request_does_not_keep_a_small_one_out(folder: Path, gate: Gate) -> None:
    async def play() -> None:
        settings = Settings(model=folder, max_queue=64, max_batch=64)
        async with started(settings) as (app, state):
            large = Caller(app, attacks.pictures(*[attacks.small_photo()] * 40))
            await until(lambda: state.admission.items.taken == 40)
            refused = Caller(app, attacks.pictures(*[attacks.small_photo()] * 20))
            await refused.task
            assert refused.status == 429
            small = Caller(app, attacks.pictures(attacks.small_photo(seed=5)))
            await until(lambda: state.admission.items.taken == 41)
            gate.open.set()
            await asyncio.gather(large.task, small.task)
            assert (large.status, small.status) == (200, 200)
            assert nothing_is_held(state)

    asyncio.run(play())


def test_texts_do_not_wait_for_pictures(folder: Path, gate: Gate) -> None:
    async def play() -> None:
        async with started(Settings(model=folder)) as (app, _):
            body = attacks.pictures(*[attacks.small_photo()] * 30)
            pictures = [Caller(app, body) for _ in range(3)]
            await until(lambda: gate.given > 0)
            text = Caller(app, b'{"texts": ["a cat"]}', "/v1/embed/text")
            await text.task
            assert text.status == 200 and not any(one.task.done() for one in pictures)
            gate.open.set()
            await asyncio.gather(*(one.task for one in pictures))

    asyncio.run(play())


def test_a_body_that_does_not_come_is_not_waited_for(folder: Path) -> None:
    async def play() -> None:
        settings = replace(Settings(model=folder), body_idle_s=0.2)
        async with started(settings) as (app, state):
            transport = httpx.ASGITransport(app)

            async def stalls() -> AsyncIterator[bytes]:
                yield b'{"texts"'
                await asyncio.sleep(60)

            async with httpx.AsyncClient(transport=transport, base_url="http://here") as ask:
                answer = await ask.post("/v1/embed/text", content=stalls(), headers=JSON)
            assert (answer.status_code, answer.json()["error"]["type"]) == (408, "body_too_slow")
            assert answer.headers["connection"] == "close"
            assert nothing_is_held(state)

    asyncio.run(play())


def test_a_body_that_would_be_late_anyway_is_not_waited_for(folder: Path) -> None:
    async def play() -> None:
        settings = replace(Settings(model=folder), body_idle_s=0.3, timeout_s=20.0)
        async with started(settings) as (app, state):
            transport = httpx.ASGITransport(app)

            async def trickles() -> AsyncIterator[bytes]:
                for _ in range(400):  # more than a kilobyte a second, and an hour for all
                    yield bytes(400)
                    await asyncio.sleep(0.05)

            length = {"content-length": "10000000"}
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as ask:
                answer = await ask.post(
                    "/v1/embed/text", content=trickles(), headers={**JSON, **length}
                )
            assert (answer.status_code, answer.json()["error"]["type"]) == (408, "body_too_slow")
            assert nothing_is_held(state)

    asyncio.run(play())


def test_base64_is_whole_or_none(client: Client) -> None:
    good = base64.b64encode(attacks.small_photo()).decode()
    broken = [good[:-1], good[: len(good) // 2] + "=" + good[len(good) // 2 + 1 :], "@@@@"]
    with client() as ask:
        results = ask.post("/v1/embed/image", json={"images": [*broken, good]}).json()["results"]
    assert ["error" in one for one in results] == [True, True, True, False]
    assert all("not base64" in one["error"]["message"] for one in results[:3])
