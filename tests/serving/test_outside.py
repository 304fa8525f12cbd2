"""What strangers send that was echoed, taken apart or read further than it should be."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ptft.errors import suggest
from serving.about import shown_card
from serving.refusal import Refusal
from tests.serving.conftest import Client

DEEP = 1000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embed/text", {"texts": ["a"], "k" * 3_000_000: 1}),
        ("/v1/embed/text", {"k" * 3_000_000: ["a"] * 5000}),
        ("/v1/embeddings", {"input": ["a"], "k" * 3_000_000: 1}),
    ],
    ids=["unknown", "many", "openai"],
)
def test_a_long_key_is_not_echoed(client: Client, path: str, body: dict[str, Any]) -> None:
    with client() as ask:
        answer = ask.post(path, json=body)
        assert answer.status_code in (413, 422)
        assert len(answer.content) < 10_000


def test_a_long_word_has_no_near_miss_that_takes_its_square() -> None:
    assert suggest("cosin" + "e" * 5_000_000, ["cosine"]).startswith("allowed")
    message = str(Refusal(422, "invalid", "x" * 100_000))
    assert len(message) < 5_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embed/text", '{"texts": ' + "[" * DEEP + "]" * DEEP + "}"),
        ("/v1/embed/text", "[" * DEEP + "]" * DEEP),
        ("/v1/embeddings", '{"messages": ' + '{"a":' * DEEP + "1" + "}" * DEEP + "}"),
        (
            "/v1/embeddings",
            '{"messages": [{"role": ' + '{"a":' * DEEP + "1" + "}" * DEEP + "}]}",
        ),
    ],
)
def test_what_is_nested_deep_is_the_clients_fault(client: Client, path: str, body: str) -> None:
    with client() as ask:
        answer = ask.post(path, content=body, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500, answer.text[:300]


def test_metrics_answer_whatever_is_accepted(client: Client) -> None:
    with client() as ask:
        accept = "application/openmetrics-text; version=x"
        answer = ask.get("/metrics", headers={"accept": accept})
        assert answer.status_code == 200 and "ptft_" in answer.text


def test_immich_form_with_a_key_twice(client: Client) -> None:
    entries = json.dumps({"clip": {"textual": {"modelName": "x"}}})
    with client() as ask:
        form = {"entries": (None, entries), "text": (None, "a")}
        more = [*form.items(), ("text", (None, "b"))]
        answer = ask.post("/predict", files=more)
        assert answer.status_code == 422 and "comes twice" in answer.text


def test_a_card_is_not_read_through_a_link_that_leads_out(tmp_path: Path) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "model"
    secret.write_text("s3cret")
    folder.mkdir()
    card = folder / "README.md"
    card.symlink_to(secret)
    assert "s3cret" not in shown_card(card) and "leads out" in shown_card(card)
    card.unlink()
    (folder / "card").write_text("within")
    card.symlink_to("card")
    assert shown_card(card) == "within"


def test_more_dimensions_than_the_model_has_are_refused(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AssertionError), client(dimensions=(8, 99999)):
        pass  # it never becomes ready
    assert "PTFT_DIMENSIONS=99999: allowed: at most 24" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's clocks")
def test_the_speed_of_a_batch_is_told_within_a_limit_of_cpu_seconds() -> None:
    """A worker that runs a model for the first time has one, and its process clock ticks."""
    code = """
import resource, time
from serving.batcher import Batcher
def run(items):
    own = time.thread_time()
    while time.thread_time() - own < 0.001 * len(items):
        pass
resource.setrlimit(resource.RLIMIT_CPU, (1000, resource.RLIM_INFINITY))
batcher = Batcher("x", run, max_batch=1, observe=print, threads=1)
for count in [1, 2] * 10:
    assert batcher.measure(None, count) > 0.0009 * count
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
