"""Prometheus metrics of the service, on ``/metrics``.

They stand in for BentoML's own, which make a set of series for every path that is ever asked for,
those that do not exist included: whoever tries addresses fills the memory.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import ValueClass

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ITEMS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """All of them.

    BentoML has workers share their numbers through files, where they outlive a worker that is
    started again.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()  # not the global one: tests make many apps
        self.requests = Counter(
            "ptft_requests", "Requests answered", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "ptft_request_seconds",
            "Seconds from a request's arrival to its answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.rejected = Counter(
            "ptft_rejected",
            "Requests refused, by reason and name of the API key",
            ["reason", "key"],
            registry=registry,
        )
        self.items = Counter(
            "ptft_items", "Images and texts answered", ["kind", "outcome"], registry=registry
        )
        self.batch_items = Histogram(
            "ptft_batch_items",
            "Images or texts that ran through a tower at once",
            ["kind"],
            buckets=_ITEMS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "ptft_batch_seconds",
            "Seconds of one batch in a tower",
            ["kind"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_items = Gauge(
            "ptft_queue_items",
            "Images and texts of requests that are being answered",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.model_info = Gauge(
            "ptft_model_info",
            "1, labelled with the model that is served",
            ["model", "digest", "precision"],
            multiprocess_mode="livemax",
            registry=registry,
        )

    def text(self) -> bytes:
        """What Prometheus scrapes."""
        registry = self._registry
        if ValueClass.__name__ == "MmapedValue":  # PROMETHEUS_MULTIPROC_DIR was set: files
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)

    def observe_batch(self, kind: str, items: int, seconds: float) -> None:
        """One batch has run."""
        self.batch_items.labels(kind).observe(items)
        self.batch_seconds.labels(kind).observe(seconds)

    def observe_items(self, kind: str, succeeded: int, failed: int) -> None:
        """The items of one request."""
        self.items.labels(kind, "ok").inc(succeeded)
        if failed:
            self.items.labels(kind, "failed").inc(failed)
