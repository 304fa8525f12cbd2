"""Traces go to an OTLP endpoint that is given, and nothing goes anywhere without one."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving.conftest import Client

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="of the extra `serve`: make installs it"
)
from tests.serving.collector import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_span_a_request_and_one_for_each_phase(
    client: Client, collector: Collector, pictures: list[bytes]
) -> None:
    with client(otlp_endpoint=collector.url, trace_ratio=0.0, access_log=True) as ask:
        trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        ask.post("/v1/embed/text", json={"texts": ["never sampled"]})
        answer = ask.post(
            "/v1/embed/image?secret=1",
            files=[("images", pictures[0])],
            headers={"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "mine"},
        )
        assert answer.status_code == 200
    assert set(collector.paths) == {"/v1/traces"}
    assert collector.services == {"ptft"}
    (root,) = [span for span in collector.spans if span.parent_span_id.hex() == parent]
    assert root.name == "POST /v1/embed/image"
    assert attributes(root) == {
        "http.request.method": "POST",
        "http.route": "/v1/embed/image",
        "http.response.status_code": 200,
        "ptft.request_id": "mine",
    }
    parts = {span.name: span for span in collector.spans if span is not root}
    assert parts.keys() == {"read", "decode", "queue", "engine", "write"}
    for name, part in parts.items():
        assert part.trace_id.hex() == trace
        assert part.parent_span_id == root.span_id
        assert root.start_time_unix_nano <= part.start_time_unix_nano, name
        assert part.end_time_unix_nano <= root.end_time_unix_nano, name
        assert 0 < attributes(part)["ptft.seconds"] < 60
    starts = [parts[name].start_time_unix_nano for name in ("read", "decode", "engine", "write")]
    assert starts == sorted(starts)


def test_a_share_is_sampled(client: Client, collector: Collector) -> None:
    with client(otlp_endpoint=collector.url, trace_ratio=1.0) as ask:
        for _ in range(3):
            ask.get("/v1/model")
            ask.get("/readyz")
            ask.get("/v1/model", headers={"traceparent": "no such thing"})
    roots = [span.name for span in collector.spans if not span.parent_span_id]
    assert roots == ["GET /v1/model"] * len(roots)
    assert len(roots) >= 6


def test_an_endpoint_that_is_not_there_holds_nobody_up(client: Client) -> None:
    with client(otlp_endpoint="http://127.0.0.1:9", trace_ratio=1.0) as ask:
        assert ask.get("/v1/model").status_code == 200
