"""Who may ask: keys at the door, their limits, other origins, and a file that changes."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from serving.guard import KeyGuard
from serving.refusal import Refusal
from serving.settings import Settings
from tests.serving.conftest import Client
from tests.serving.server import wait_until_ready

SECRET = "a-key-of-ours"


def line(name: str, secret: str, limits: str = "") -> str:
    return f"{name} sha256:{hashlib.sha256(secret.encode()).hexdigest()} {limits}"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def scope(secret: str = SECRET, path: str = "/v1/model", header: str = "") -> dict[str, Any]:
    name, value = (b"x-api-key", secret) if not header else (b"authorization", header)
    return {"type": "http", "path": path, "headers": [(name, value.encode())]}


def refused(guard: KeyGuard, asked: dict[str, Any]) -> tuple[int, str, int | None]:
    with pytest.raises(Refusal) as caught:
        guard.enter(asked)
    return caught.value.status, caught.value.kind, caught.value.retry_after


def make(lines: str = "", **settings: Any) -> tuple[KeyGuard, Clock]:
    clock = Clock()
    return KeyGuard(Settings(model=Path("model"), keys=lines, **settings), clock), clock


def test_a_key_lets_in_and_is_named() -> None:
    guard, _ = make(f"{line('one', SECRET)};{line('two', 'second')}")
    for given in (scope(), scope(header=f"Bearer {SECRET}"), scope(header=f"bearer  {SECRET} ")):
        guard.enter(given)()
        assert given["ptft.caller"] == "one"
    guard.enter(scope("second"))()
    for wrong in (scope(SECRET + "x"), scope("x" * 4096), scope(header="Bearer ")):
        assert refused(guard, wrong)[:2] == (401, "wrong_key")
    for none in ({**scope(), "headers": []}, scope(header=f"Basic {SECRET}")):
        assert refused(guard, none)[:2] == (401, "no_key")
    for path in ("/livez", "/readyz", "/healthz", "/metrics", "/docs"):
        guard.enter({**scope(path=path), "headers": []})


def test_without_keys_it_is_open() -> None:
    guard, _ = make()
    assert guard.is_open
    guard.enter({**scope(), "headers": []})


def test_a_key_that_is_over_is_forbidden() -> None:
    guard, _ = make(line("old", SECRET, "expires=2020-01-01"))
    assert refused(guard, scope()) == (403, "key_expired", None)


def test_a_rate_fills_again() -> None:
    guard, clock = make(line("one", SECRET, "rate=2") + ";" + line("two", "second"))
    guard.enter(scope())
    guard.enter(scope())
    assert refused(guard, scope()) == (429, "key_rate", 1)
    guard.enter(scope("second"))  # another key has limits of its own
    clock.now += 0.5
    guard.enter(scope())
    assert refused(guard, scope()) == (429, "key_rate", 1)
    clock.now += 1000
    for _ in range(2):
        guard.enter(scope())
    assert refused(guard, scope())[1] == "key_rate"
    slow, _ = make(line("slow", SECRET, "rate=0.1"))
    slow.enter(scope())
    assert refused(slow, scope()) == (429, "key_rate", 10)


def test_so_many_at_once() -> None:
    guard, _ = make(line("one", SECRET, "concurrency=2"))
    first, _second = guard.enter(scope()), guard.enter(scope())
    assert refused(guard, scope()) == (429, "key_concurrency", 1)
    first()
    guard.enter(scope())


def test_a_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text(line("one", SECRET, "concurrency=1"))
    guard, clock = make(keys_file=file)
    leave = guard.enter(scope())

    def write(text: str) -> None:
        other = tmp_path / "other"
        other.write_text(text)
        other.replace(file)
        clock.now += 2

    write(line("one", SECRET, "concurrency=1") + "\n" + line("two", "second"))
    guard.enter(scope("second"))
    assert refused(guard, scope())[1] == "key_concurrency"  # what is in use is not forgotten
    leave()
    write(f"one {SECRET}")
    guard.enter(scope("second"))
    file.unlink()
    clock.now += 2
    guard.enter(scope("second"))
    assert [record.levelname for record in caplog.records].count("ERROR") == 2
    assert SECRET not in caplog.text
    write(line("two", "second"))
    assert refused(guard, scope())[:2] == (401, "wrong_key")
    write("")  # the last key taken away lets nobody in
    assert refused(guard, scope("second"))[:2] == (401, "wrong_key")
    assert "none is left, and everybody is refused" in caplog.text


def test_over_http(client: Client) -> None:
    keys = f"{line('one', SECRET)};{line('old', 'old', 'expires=2020-01-01')};"
    keys += line("slow", "slow", "rate=0.01")
    origin = {"origin": "https://shop.example"}
    with client(keys=keys, metrics="key", cors_origins=("https://shop.example",)) as ask:
        ask.headers["x-api-key"] = SECRET
        wait_until_ready(ask)
        assert ask.get("/v1/model").status_code == 200
        del ask.headers["x-api-key"]
        for path in ("/v1/model", "/metrics", "/nothing"):
            answer = ask.get(path, headers={"x-request-id": "mine", **origin})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["access-control-allow-origin"] == "https://shop.example"
            error = answer.json()["error"]
            assert (error["code"], error["request_id"]) == ("no_key", "mine")
        assert ask.get("/livez").status_code == ask.get("/readyz").status_code == 200
        preflight = ask.options(
            "/v1/embed/text",
            headers={
                **origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 200
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        elsewhere = ask.options(
            "/v1/embed/text",
            headers={"origin": "https://other.example", "access-control-request-method": "POST"},
        )
        assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (400, "cors")
        other = ask.get("/livez", headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        assert ask.get("/v1/model", headers={"x-api-key": "old"}).status_code == 403
        bearer = {"authorization": "Bearer slow"}
        assert ask.get("/v1/model", headers=bearer).status_code == 200
        answer = ask.get("/v1/model", headers=bearer)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "100")
        echoed = ask.get("/v1/model", headers={"x-request-id": SECRET, "x-api-key": SECRET})
        assert echoed.headers["x-request-id"] != SECRET
        lines = ask.get("/metrics", headers={"x-api-key": SECRET}).text.splitlines()
    assert 'ptft_rejected_total{key="",reason="no_key"} 4.0' in lines  # and the fixture's own
    assert 'ptft_rejected_total{key="old",reason="key_expired"} 1.0' in lines
    assert 'ptft_rejected_total{key="slow",reason="key_rate"} 1.0' in lines


def test_other_origins_are_told_nothing_by_default(client: Client) -> None:
    with client() as ask:
        answer = ask.get("/livez", headers={"origin": "https://shop.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
