"""What /metrics has, as the parsers of prometheus_client read it."""

import re
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families as read_text
from starlette.testclient import TestClient

from ptft.onnx.model import OnnxModel
from serving.metrics import BUDGETS
from serving.phases import PHASES, Phases
from tests.serving.conftest import Client
from tests.serving.scraping import scrape, values
from tests.serving.server import REPO, Server

README = REPO / "serving" / "README.md"


def test_what_a_session_leaves(client: Client, pictures: list[bytes]) -> None:
    with client(max_batch=4, cache_bytes=10**6) as ask:
        ask.post("/v1/embed/image", files=[("images", pictures[0]), ("images", pictures[1])])
        ask.post("/v1/embed/text", json={"texts": ["a cat", "a"]})
        ask.post("/v1/embed/text", json={"texts": ["a"] * 5})
        ask.get("/nothing")
        ask.get("/readyz")
        found = scrape(ask)
        plain = ask.get("/metrics")
    assert {family.name for family in read_text(plain.text)} >= {
        "ptft_requests",
        "ptft_phase_seconds",
    }
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert values(found, "pixels", "_total") == {"": 40 * 64 + 47 * 61}
    assert values(found, "tokens", "_total")[""] >= 4  # and those of readiness
    refused = values(found, "rejected", "_total")
    loading = refused.pop(",not_ready", 0)  # the fixture asked until the model was there
    assert refused == {",too_many_items": 1, ",no_such_path": 1}
    counts = values(found, "phase_seconds", "_count")
    assert counts.keys() == set(PHASES)
    assert counts["engine"] == counts["decode"] == counts["queue"] == 2
    assert (counts["read"], counts["write"]) == (3, 4 + loading + 1)
    for name, (limit, _) in BUDGETS.items():
        taken, most = values(found, name)[""], values(found, limit)[""]
        assert taken == 0 < most or name == "cache_bytes", name
    assert found["process_resident_memory_bytes"].samples[0].value > 10**7
    assert found["process_cpu_seconds"].samples[0].value > 0


def test_what_is_held_is_seen_while_it_is_held(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = OnnxModel.encode_texts
    asking: list[TestClient] = []
    seen: list[dict[str, Metric]] = []

    def looking(model: OnnxModel, items: Any) -> Any:
        seen.extend(scrape(one) for one in asking)
        return encode(model, items)

    monkeypatch.setattr(OnnxModel, "encode_texts", looking)
    with client(max_batch=4) as ask:
        asking.append(ask)
        ask.post("/v1/embed/text", json={"texts": ["a cat", "a"]})
    (found,) = seen
    assert values(found, "queue_items") == {"": 2}
    assert values(found, "memory_bytes")[""] > 1000
    assert values(found, "work_seconds")[""] > 0


def test_off_is_neither_counted_nor_answered(client: Client) -> None:
    with client(metrics="off") as ask:
        assert ask.post("/v1/embed/text", json={"texts": ["a"]}).status_code == 200
        answer = ask.get("/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_path")


def test_under_bentoml_too(server: Server) -> None:
    """Where numbers are shared through files; the process's own figures are there as well."""
    with httpx.Client(base_url=server.url) as ask:
        assert ask.post("/v1/embed/text", json={"texts": ["a"]}).status_code == 200
        place = (ask.base_url.host, ask.base_url.port)
        with socket.create_connection(place) as stranger:  # type: ignore[arg-type]
            stranger.sendall(b"no HTTP\r\n\r\n")
            assert stranger.recv(99).startswith(b"HTTP/1.1 400 ")
        found = scrape(ask)
    assert values(found, "rejected", "_total")[",http"] == 1  # before there was a request
    assert values(found, "queue_limit_items") == {"": 256}
    assert values(found, "queue_items") == {"": 0}
    assert values(found, "phase_seconds", "_count")["engine"] >= 1
    assert found["process_cpu_seconds"].samples[0].value > 0


def test_a_phase_lasts_while_anything_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    phases = Phases()
    phases.enter("queue")
    now = 1.0
    phases.enter("queue")
    now = 3.0
    phases.leave("queue")
    now = 4.0
    phases.leave("queue")
    assert phases.lasted["queue"].seconds == 4.0
    now = 10.0
    phases.enter("queue")
    now = 10.5
    phases.finish()
    phases.leave("queue")  # an item that was given up ends after its request
    lasted = phases.lasted["queue"]
    assert (lasted.first, lasted.last, lasted.seconds) == (0.0, 10.5, 4.5)


def test_every_metric_is_documented(client: Client, sketched: Path) -> None:
    rows = re.findall(r"^\| (`ptft_[^|]+)\|([^|]*)\|", README.read_text(), re.MULTILINE)
    documented = {
        name.removesuffix("_total"): set(re.findall(r"\w+", labels))
        for names, labels in rows
        for name in re.findall(r"`(ptft_\w+)`", names)
    }
    mirror = {"mirror_url": "http://127.0.0.1:9", "mirror_share": 0.0}
    with client(cache_bytes=10**6, model=sketched, **mirror) as ask:
        ask.post("/v1/embed/text", json={"texts": ["a"]})
        ask.get("/nothing")
        found = scrape(ask)
    labelled = {
        name: set().union(*(one.labels for one in family.samples)) - {"le"}
        for name, family in found.items()
        if name.startswith("ptft_")
    }
    assert documented == labelled


def test_how_many_run_at_once_is_measured_or_set(client: Client) -> None:
    with client() as ask:
        measured = values(scrape(ask), "batch_limit_items")
    assert measured.keys() == {"image", "text"}
    assert set(measured.values()) <= {1, 2, 4, 8, 16}
    with client(micro_batch=3) as ask:
        assert values(scrape(ask), "batch_limit_items") == {"image": 3, "text": 3}
