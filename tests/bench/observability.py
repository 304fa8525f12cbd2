"""CPU that keys, logs, metrics and traces take of the service for a request, by switching them off.

Two services of one small model beside each other, one with everything off, one with API keys that
have limits, an access log in JSON, metrics and traces at their default share, asked in turn for the
embedding of a text; then the same with every request traced. On uvicorn alone, and under BentoML,
where metrics are shared through files. Prints CPU-milliseconds of the worker for a request, and
what is on takes more. Where OpenTelemetry's exporter is not installed traces stay off, and a line
says so.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx

from ptft.export import export_model
from ptft.model import build_model, save_model
from ptft.recipe import ClipObjective
from serving.keys import make_key
from tests.bench._parts import Absent
from tests.bench._processes import cpu_seconds
from tests.serving.server import Server, serve, serve_plain
from tests.support.tiny import arch_section

ROUNDS, REQUESTS = 12, 250
_BODY = {"texts": ["a photo of a cat"]}
_OFF = {"PTFT_METRICS": "off"}

Start = Callable[..., AbstractContextManager[Server]]


@contextmanager
def _collector() -> Iterator[str]:
    """Where traces go; empty where there is no exporter."""
    try:
        from tests.serving.collector import Collector
    except ModuleNotFoundError:
        yield ""
        return
    collector = Collector()
    try:
        yield collector.url
    finally:
        collector.close()


def _everything(home: Path, collector: str) -> tuple[dict[str, str], str]:
    """Settings with everything on, and the key."""
    secret, key = make_key("bench")
    (home / "keys").write_text(f"{key.line()} rate=100000 concurrency=100\n")
    settings = {
        "PTFT_KEYS_FILE": str(home / "keys"),
        "PTFT_LOG_FORMAT": "json",
        "PTFT_ACCESS_LOG": "on",
    }
    if collector:
        settings["PTFT_OTLP_ENDPOINT"] = collector
    return settings, secret


def _ask(client: httpx.Client, worker: int, count: int) -> float:
    """CPU-ms of the worker for a request."""
    before = cpu_seconds(worker)
    for _ in range(count):
        answer = client.post("/v1/embed/text", json=_BODY)
        assert answer.status_code == 200, answer.text
    return (cpu_seconds(worker) - before) / count * 1e3


def _measure(
    start: Start,
    home: Path,
    services: dict[str, dict[str, str]],
    secret: str,
    size: tuple[int, int],
) -> dict[str, float]:
    """CPU-ms a request of each, asked in turn."""
    rounds, requests = size
    with contextlib.ExitStack() as held:
        asked = {}
        for name, settings in services.items():
            server = held.enter_context(start(home, settings))
            client = httpx.Client(base_url=server.url, headers={"x-api-key": secret}, timeout=60)
            asked[name] = (held.enter_context(client), server.worker())
        taken = dict.fromkeys(services, 0.0)
        for number in range(rounds + 1):
            for name, (client, worker) in asked.items():
                found = _ask(client, worker, requests)
                taken[name] += found if number else 0.0  # the first round warms up
    return {name: total / rounds for name, total in taken.items()}


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    figures: dict[str, float] = {}
    ways: dict[str, Start] = {"uvicorn": serve_plain, "bentoml": serve}
    with tempfile.TemporaryDirectory() as place, _collector() as collector:
        home = Path(place)
        model = build_model(arch_section(), None, ClipObjective(), seed=0)
        save_model(model, home / "run")
        export_model(home / "run", home / "model", name="bench", precisions=())
        common = {"PTFT_MODEL": str(home / "model"), "PTFT_THREADS": "1", "PTFT_MICRO_BATCH": "4"}
        everything, secret = _everything(home, collector)
        services = {"off": common | _OFF, "on": common | everything}
        if collector and not smoke:
            services["all traced"] = services["on"] | {"PTFT_TRACE_RATIO": "1"}
        print(
            f"{'CPU-ms a request':<18}" + "".join(f"{name:>12}" for name in services) + "    more"
        )
        for way, start in list(ways.items())[: 1 if smoke else 2]:
            size = (1, 5) if smoke else (ROUNDS, REQUESTS)
            found = _measure(start, home, services, secret, size)
            more = {name: found[name] - found["off"] for name in services if name != "off"}
            shown = "".join(f"{ms:>12.3f}" for ms in found.values())
            print(f"{way:<18}{shown}    {', '.join(f'{ms:.3f}' for ms in more.values())}")
            figures |= {
                f"{way}_{name.replace(' ', '_')}": round(ms, 3) for name, ms in more.items()
            }
    if not collector:
        raise Absent("no opentelemetry-exporter-otlp-proto-http: traces were off", figures)
    return figures


BARS = {"uvicorn_on": ("<=", 0.5), "bentoml_on": ("<=", 0.5)}
