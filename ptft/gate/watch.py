"""Two services while they run, by what each counts itself: errors, latency, drift, disagreement.

A name may stand for several pods: each address that it has is scraped, and their counts are summed.
"""

import math
import re
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ptft.errors import ServiceError
from ptft.gate.bounds import GateBound
from ptft.gate.checks import Check

__all__ = ["Counts", "read_counts", "watch"]

_PAUSE_S = 0.5
_QUANTILE = 0.95
_SAMPLE = re.compile(r"(ptft_\w+)\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass
class Counts:
    """Of one scrape of a service.

    Attributes:
        requests: answered, by status.
        buckets: requests that took at most so many seconds, cumulative.
        moved: kinds of input that have drifted from training.
        mirrored: items that the other release was asked as well, by outcome.
    """

    requests: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    moved: set[str] = field(default_factory=set)
    mirrored: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def watch(
    new: str,
    live: str,
    seconds: float,
    bounds: Sequence[GateBound],
    ask: Callable[[], None],
    api_key: str | None = None,
) -> list[Check]:
    """Compare two services over a while, in which both are also asked for the same.

    Args:
        new, live: addresses.
        bounds: of ``errors`` (share of answers that are 5xx), ``slower`` (its 95th percentile by
            the live one's), ``drift`` (kinds of input that moved) and ``disagreement`` (share
            of the live one's mirrored items whose best answer is another).
        ask: asks both once.

    Raises:
        ServiceError: a service gives no answer, or does not show its metrics.
    """
    before = [_scrape(one, api_key) for one in (new, live)]
    until = time.monotonic() + seconds
    while True:
        ask()
        left = until - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(_PAUSE_S, left))
    after = [_scrape(one, api_key) for one in (new, live)]
    (own, own_s), (theirs, theirs_s) = (
        (_requests(a, b), _quantile(a, b)) for a, b in zip(before, after, strict=True)
    )
    errors = _share(own)
    said = {
        "errors": (
            errors,
            f"{errors:.4g} of {sum(own.values()):.0f} answers (live: {_share(theirs):.4g} of "
            f"{sum(theirs.values()):.0f})",
        ),
        "slower": (
            own_s / theirs_s if theirs_s > 0 else math.nan,
            f"{own_s / theirs_s if theirs_s > 0 else math.nan:.3g} times: 95 % within "
            f"{own_s * 1000:.3g} ms, live: {theirs_s * 1000:.3g} ms",
        ),
        "drift": (
            float(len(after[0].moved)),
            f"{len(after[0].moved)} kinds of input moved ({', '.join(sorted(after[0].moved))})"
            if after[0].moved
            else "0 kinds of input moved",
        ),
    }
    most = {one.name: one.value for one in bounds}
    differ = _disagreement(before[1], after[1])
    if "disagreement" in most or not math.isnan(differ[0]):
        said["disagreement"] = differ
    return [
        # NaN is within no bound
        Check(name, name not in most or value <= most[name], _bounded(words, most.get(name)))
        for name, (value, words) in said.items()
    ]


def _bounded(words: str, most: float | None) -> str:
    return f"{words}; no bound" if most is None else f"{words}; allowed: at most {most:.4g}"


def _requests(before: Counts, after: Counts) -> dict[str, float]:
    """Answers in between; a pod that came counts whole, one that went not at all."""
    found = {
        status: count - before.requests.get(status, 0.0) for status, count in after.requests.items()
    }
    return {status: max(count, 0.0) for status, count in found.items()}


def _disagreement(before: Counts, after: Counts) -> tuple[float, str]:
    other, same = (
        max(after.mirrored[one] - before.mirrored[one], 0.0) for one in ("other", "same")
    )
    if not other + same:
        return math.nan, "no request was mirrored"
    return other / (other + same), f"{other / (other + same):.4g} of {other + same:.0f} items"


def _share(requests: Mapping[str, float]) -> float:
    total = sum(requests.values())
    bad = sum(count for status, count in requests.items() if status.startswith("5"))
    return bad / total if total else math.nan


def _quantile(before: Counts, after: Counts) -> float:
    """Seconds within which 95 % were answered, by linear interpolation within a bucket."""
    counts = {
        bound: max(count - before.buckets.get(bound, 0.0), 0.0)
        for bound, count in sorted(after.buckets.items())
    }
    total = max(counts.values(), default=0.0)
    if not total:
        return math.nan
    low, under = 0.0, 0.0
    for bound, count in counts.items():
        if count >= _QUANTILE * total:
            if math.isinf(bound):
                return low
            share = (_QUANTILE * total - under) / max(count - under, 1e-9)
            return low + share * (bound - low)
        low, under = bound, count
    return low


def _scrape(url: str, api_key: str | None) -> Counts:
    import httpx2

    counts = Counts()
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    for address in _addresses(url):
        try:
            answer = httpx2.get(f"{address}/metrics", headers=headers, timeout=10)
        except httpx2.HTTPError as error:
            raise ServiceError(f"{url}: {type(error).__name__}: {error}") from None
        if answer.status_code != 200:
            raise ServiceError(f"{url}/metrics: {answer.status_code}", status=answer.status_code)
        read_counts(answer.text, counts)
    return counts


def _addresses(url: str) -> list[str]:
    """The address for each that its name has; a name over TLS stays as it is."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return [url]
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServiceError(f"{url}: {error}") from None
    hosts = sorted({(f"[{a[0]}]" if ":" in str(a[0]) else str(a[0])) for *_, a in found})
    if parts.hostname in ("localhost",):
        return [url]
    return [f"http://{host}:{parts.port or 80}" for host in hosts]


def read_counts(text: str, into: Counts) -> None:
    """Add a scrape in Prometheus' text format."""
    for line in text.splitlines():
        found = _SAMPLE.fullmatch(line)
        if found is None:
            continue
        name, inner, value = found.groups()
        labels = dict(_LABEL.findall(inner))
        if name == "ptft_requests_total":
            into.requests[labels["status"]] += float(value)
        elif name == "ptft_request_seconds_bucket":
            into.buckets[float(labels["le"])] += float(value)
        elif name == "ptft_mirrored_items_total":
            into.mirrored[labels["outcome"]] += float(value)
        elif name == "ptft_drift_moved" and float(value) == 1:
            into.moved.add(labels["kind"])
