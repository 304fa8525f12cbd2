"""Prometheus metrics of the service, on ``/metrics``, in its text format or as OpenMetrics.

They stand in for BentoML's own, which make a set of series for every path that is ever asked for,
those that do not exist included: whoever tries addresses fills the memory.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.values import ValueClass

from serving.drift import Moved
from serving.phases import PHASES, Phases

__all__ = ["BUDGETS", "Metrics"]

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SHORT = (0.0002, 0.0005, 0.001, 0.002)  # phases that are over at once
_MOST_NOTED = 512  # a worker that is killed takes them along
_ITEMS = (1, 2, 4, 8, 16, 32, 64)
_FAILURES = ("500", "503", "504")

BUDGETS: Mapping[str, tuple[str, str]] = {
    "queue_items": ("queue_limit_items", "Images and texts of requests that are being answered"),
    "memory_bytes": ("memory_limit_bytes", "Bytes that requests hold: bodies, pixels, answers"),
    "decoding_bytes": ("decoding_limit_bytes", "Bytes that decoding is estimated to take now"),
    "cache_bytes": ("cache_limit_bytes", "Bytes of embeddings that are kept"),
    "work_seconds": ("work_limit_seconds", "Seconds that what is admitted is estimated to take"),
}
"""What is taken of a budget -> its limit, and what it is."""


class Metrics:
    """All of them.

    BentoML has workers share their numbers through files, where they outlive a worker that is
    started again. There is one worker: gauges are what the last one set.

    Args:
        on: count; else everything is passed over.
    """

    def __init__(self, *, on: bool = True) -> None:
        self._registry = CollectorRegistry()  # not the global one: tests make many apps
        self._on = on
        ProcessCollector(registry=self._registry)
        self._noted: dict[tuple[Any, str, tuple[str, ...]], list[float]] = defaultdict(list)
        self._count_noted = 0
        self._requests = self._counter("requests", "Requests answered", "route", "status")
        self._seconds = self._histogram(
            "request_seconds", "Seconds from a request's arrival to its answer", _SECONDS, "route"
        )
        self._phases = self._histogram(
            "phase_seconds",
            "Seconds of a request while its body is read, its items are decoded or tokenised, "
            "wait, are in a tower, and its answer is written",
            _SHORT + _SECONDS,
            "phase",
        )
        for name in PHASES:
            self._phases.labels(name)
        self.rejected = self._counter(
            "rejected", "Requests refused, by reason and name of the API key", "reason", "key"
        )
        self._items = self._counter("items", "Images and texts answered", "kind", "outcome")
        self.tokens = self._counter("tokens", "Tokens of texts that were tokenised")
        self.pixels = self._counter("pixels", "Pixels of pictures decoded, as their headers say")
        self._cache_items = self._counter(
            "cache_items", "Images and texts that were looked for in the cache", "kind", "outcome"
        )
        self._batch_items = self._histogram(
            "batch_items", "Images or texts that ran through a tower at once", _ITEMS, "kind"
        )
        self._batch_seconds = self._histogram(
            "batch_seconds", "Seconds of one batch in a tower", _SECONDS, "kind"
        )
        self.mirrored_requests = self._counter(
            "mirrored_requests", "Requests that another release was asked as well", "outcome"
        )
        same = "Items of mirrored requests, by whether both releases give the same best answer"
        self.mirrored_items = self._counter("mirrored_items", same, "outcome")
        self._budgets = {
            name: (self._gauge(name, what), self._gauge(limit, f"{what}: allowed"))
            for name, (limit, what) in BUDGETS.items()
        }
        self.drift_items = self._gauge("drift_items", "Items of the last hour", "kind")
        self.drift_value = self._gauge(
            "drift_value", "Distance from training; of confidence, its mean", "kind"
        )
        self.drift_bound = self._gauge(
            "drift_bound", "Where the null band of ptft_drift_value ends", "kind", "side"
        )
        self.drift_moved = self._gauge(
            "drift_moved", "1 where ptft_drift_value is beyond its band, NaN for too few", "kind"
        )
        what = "1, labelled with the model that is served"
        labels = ("model", "digest", "precision", "provider")
        self.model_info = self._gauge("model_info", what, *labels)
        self.batch_limit = self._gauge(
            "batch_limit_items", "Images or texts that may run through a tower at once", "kind"
        )

    def text(self, accept: str) -> tuple[bytes, str]:
        """What Prometheus scrapes, and its content type.

        Args:
            accept: the header of that name.
        """
        self.write()
        registry = self._registry
        if ValueClass.__name__ == "MmapedValue":  # PROMETHEUS_MULTIPROC_DIR was set: files
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
            ProcessCollector(registry=registry)
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # a version that is none
            encode, content_type = choose_encoder("")
        return encode(registry), content_type

    def write(self) -> None:
        """Put down what was noted; whoever scrapes does, and who stops has to."""
        noted, self._noted, self._count_noted = self._noted, defaultdict(list), 0
        for (metric, how, labels), amounts in noted.items():
            if metric is self._requests:
                for status in _FAILURES:  # at zero, or a rate misses the first failure of a route
                    metric.labels(labels[0], status)
            note = getattr(metric.labels(*labels), how)
            for amount in amounts if how == "observe" else (sum(amounts),):
                note(amount)

    def set_model(self, name: str, digest: str, precision: str, provider: str) -> None:
        """What is served."""
        self.model_info.labels(name, digest, precision, provider).set(1)

    def set_batches(self, most: Mapping[str, int]) -> None:
        """What each tower may take at once: kind -> items."""
        for kind, count in most.items():
            self.batch_limit.labels(kind).set(count)

    def observe_answer(self, route: str, status: int, seconds: float) -> None:
        """A request was answered, so long after it came."""
        self._count(self._requests, 1, route, str(status))
        self._observe(self._seconds, seconds, route)

    def observe_batch(self, kind: str, items: int, seconds: float) -> None:
        """One batch has run."""
        self._observe(self._batch_items, items, kind)
        self._observe(self._batch_seconds, seconds, kind)

    def observe_items(self, kind: str, succeeded: int, failed: int) -> None:
        """The items of one request."""
        self._count(self._items, succeeded, kind, "ok")
        if failed:
            self._count(self._items, failed, kind, "failed")

    def observe_cache(self, kind: str, hits: int, misses: int) -> None:
        """Items that were looked for in the cache; both series are there from the first on, so that
        the share of hits can be drawn before there is one."""
        self._count(self._cache_items, hits, kind, "hit")
        self._count(self._cache_items, misses, kind, "miss")

    def observe_phases(self, phases: Phases) -> None:
        """Where the seconds of one request went."""
        for phase, lasted in phases.lasted.items():
            self._observe(self._phases, lasted.seconds, phase)

    def set_budgets(self, taken: Mapping[str, tuple[float, float]]) -> None:
        """Name, as in ``BUDGETS`` -> what is taken now, and the limit."""
        for name, amounts in taken.items():
            for gauge, amount in zip(self._budgets[name], amounts, strict=True):
                gauge.set(amount)

    def set_drift(self, found: Sequence[Moved]) -> None:
        """How far traffic has moved from training, see ``serving.drift``; not a number where that
        cannot be said."""
        for one in found:
            self.drift_items.labels(one.kind).set(one.items)
            self.drift_value.labels(one.kind).set(_number(one.value))
            self.drift_moved.labels(one.kind).set(_number(one.moved))
            for side, bound in (("low", one.low), ("high", one.high)):
                self.drift_bound.labels(one.kind, side).set(_number(bound))

    def _count(self, metric: Any, amount: float, *labels: str) -> None:
        self._note(metric, "inc", labels, amount)

    def _observe(self, metric: Any, amount: float, *labels: str) -> None:
        self._note(metric, "observe", labels, amount)

    def _note(self, metric: Any, how: str, labels: tuple[str, ...], amount: float) -> None:
        """Keep it until there are many: together they take a fifth of what they take one at a time
        between other things."""
        if self._on:
            self._noted[metric, how, labels].append(amount)
            self._count_noted += 1
            if self._count_noted >= _MOST_NOTED:
                self.write()

    def _counter(self, name: str, what: str, *labels: str) -> Any:
        return self._make(Counter, name, what, labels)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Any:
        return self._make(Histogram, name, what, labels, buckets=buckets)

    def _gauge(self, name: str, what: str, *labels: str) -> Any:
        return self._make(Gauge, name, what, labels, multiprocess_mode="mostrecent")

    def _make(
        self, kind: Callable[..., Any], name: str, what: str, labels: tuple[str, ...], **more: Any
    ) -> Any:
        if not self._on:
            return _Nothing()
        return kind(f"ptft_{name}", what, labels, registry=self._registry, **more)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


class _Nothing:
    """A metric that is not kept."""

    def labels(self, *values: str) -> "_Nothing":
        return self

    def inc(self, amount: float = 1) -> None:
        pass

    def observe(self, amount: float) -> None:
        pass

    def set(self, value: float) -> None:
        pass
