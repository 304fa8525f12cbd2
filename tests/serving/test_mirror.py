"""A share of the requests is also asked of another release, and the answers are held together."""

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from starlette.testclient import TestClient

from ptft.gate.watch import Counts, read_counts
from serving.mirror import best_answers
from tests.serving.conftest import Client
from tests.serving.server import Server, free_port

_SAMPLE = re.compile(r'ptft_mirrored_(\w+)_total\{outcome="(\w+)"\} (\S+)')


def counted(asking: TestClient, name: str, least: float) -> dict[str, float]:
    """What of mirrored requests is counted, once it is enough of one outcome."""
    deadline = time.monotonic() + 60
    while True:
        found: dict[str, float] = defaultdict(float)
        for what, outcome, value in _SAMPLE.findall(asking.get("/metrics").text):
            found[f"{what} {outcome}"] = float(value)
        if found[name] >= least:
            return {key: value for key, value in found.items() if value}
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


@contextmanager
def other_release(
    answer: dict[str, Any], may_answer: threading.Event
) -> Iterator[tuple[str, list]]:
    """One that waits until it may, and answers everything alike."""
    seen: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, dict(self.headers), body))
            may_answer.wait(60)
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *values: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}", seen
        finally:
            may_answer.set()
            listening.shutdown()
            thread.join()


def test_the_same_model_gives_the_same_answers(
    client: Client, server: Server, pictures: list[bytes]
) -> None:
    files = [("images", one) for one in pictures[:3]]
    with client(mirror_url=server.url, mirror_share=1.0) as asking:
        assert asking.post("/v1/classify", files=files).status_code == 200
        counted(asking, "items same", 3)
        answer = asking.post("/v1/embed/text", json={"texts": ["a cat"]})
        assert answer.status_code == 200
        assert asking.post("/v1/embed/text", json={"texts": [7]}).status_code == 422
        found = counted(asking, "requests answered", 2)  # what is refused here goes no further
        assert found == {"items same": 3, "requests answered": 2}
        counts = read_counts_of(asking)
    assert counts == {"same": 3, "other": 0}


def test_a_query_is_mirrored_too(client: Client, server: Server, pictures: list[bytes]) -> None:
    """Labels may stand in it, and without them the answer is another."""
    with client(mirror_url=server.url, mirror_share=1.0) as asking:
        answer = asking.post(
            "/v1/classify?labels=a%20rhino&labels=zebra",
            content=pictures[0],
            headers={"content-type": "image/png"},
        )
        assert answer.status_code == 200
        counted(asking, "items same", 1)
        assert read_counts_of(asking)["other"] == 0


def read_counts_of(asking: TestClient) -> dict[str, float]:
    """As ``ptft gate --watch`` reads them."""
    counts = Counts()
    read_counts(asking.get("/metrics").text, counts)
    return dict(counts.mirrored)


def test_another_answer_is_counted_and_nobody_waits(client: Client, pictures: list[bytes]) -> None:
    go = threading.Event()
    other = {"results": [{"index": 0, "classes": [{"label": "none of them"}]}]}
    with (
        other_release(other, go) as (url, seen),
        client(mirror_url=url, mirror_share=1.0) as asking,
    ):
        for _ in range(4):  # the other release answers none of them yet
            answer = asking.post(
                "/v1/classify",
                content=pictures[0],
                headers={"content-type": "image/png", "x-request-id": "a", "cookie": "b"},
            )
            assert answer.status_code == 200
        assert counted(asking, "requests passed_over", 2)["requests passed_over"] == 2
        go.set()
        found = counted(asking, "items other", 2)
        digest = answer.headers["ptft-model-digest"]
        named = asking.post(
            "/v1/classify",
            content=pictures[0],
            headers={"content-type": "image/png", "ptft-model-digest": digest},
        )
        assert named.status_code == 200
    assert "items same" not in found
    assert found["requests answered"] == 2
    assert [path for path, _, _ in seen] == ["/v1/classify"] * 2
    _, headers, body = seen[0]
    assert body == pictures[0]
    assert headers["x-request-id"] == "a"
    assert "cookie" not in headers


def test_what_is_held_for_it_is_bounded(client: Client, pictures: list[bytes]) -> None:
    go = threading.Event()
    go.set()
    with (
        other_release({"results": []}, go) as (url, seen),
        client(mirror_url=url, mirror_share=1.0, max_body_bytes=len(pictures[0]) + 8) as asking,
    ):
        kind = {"content-type": "image/png"}
        answer = asking.post("/v1/classify", content=pictures[0], headers=kind)
        assert answer.status_code == 200
        found = counted(asking, "requests passed_over", 1)
    assert found == {"requests passed_over": 1}
    assert seen == []


def test_an_answer_of_another_form_is_no_agreement(client: Client, pictures: list[bytes]) -> None:
    go = threading.Event()
    go.set()
    kind = {"content-type": "image/png"}
    for answer, counts in (
        ({"results": []}, {"requests answered": 1, "items other": 1}),
        ({"results": [{"classes": [{}]}]}, {"requests failed": 1}),
    ):
        with (
            other_release(answer, go) as (url, _),
            client(mirror_url=url, mirror_share=1.0) as asking,
        ):
            given = asking.post("/v1/classify", content=pictures[0], headers=kind)
            assert given.status_code == 200
            (most, *_) = sorted(counts)
            assert counted(asking, most, 1) == counts


def test_one_that_is_not_there_harms_nobody(client: Client) -> None:
    with client(mirror_url=f"http://127.0.0.1:{free_port()}", mirror_share=1.0) as asking:
        assert asking.post("/v1/embed/text", json={"texts": ["a cat"]}).status_code == 200
        assert counted(asking, "requests failed", 1) == {"requests failed": 1}


def test_none_is_asked_unless_it_is_named(plain_client: TestClient) -> None:
    assert plain_client.post("/v1/embed/text", json={"texts": ["a cat"]}).status_code == 200
    assert _SAMPLE.findall(plain_client.get("/metrics").text) == []


def test_the_best_answers_of_each_route() -> None:
    for answer, best in (
        (
            {"results": [{"classes": [{"label": "a"}]}, {"error": {}}, {"classes": []}]},
            ["a", None, None],
        ),
        ({"results": [{"scores": [1, 3, 2]}, {"error": {}}]}, [1, None]),
        ({"results": [{"index": 4, "relevance_score": 0.5}]}, [4]),
        ({"results": [{"index": 0, "embedding": [1.0]}]}, []),
        ({"data": []}, []),
        ([1], []),
    ):
        assert best_answers(json.dumps(answer).encode()) == best
