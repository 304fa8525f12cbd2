"""Four times what the service can do: what is answered in time, and what refusing costs.

Pictures of 640x480 come one a request at four times the rate that 32 clients in turn are answered
at, each when its time has come, whether those before it are answered or not. Prints how many were
answered, refused and given up, after how long, and what a full queue's work takes. A refusal is
timed from the last byte of its request to the first of its answer.

The service keeps idle connections for the whole of it: one that it closed in the moment in which
the client sends on it would be counted as lost, and no answer that was refused or given up is.
"""

import asyncio
import os
import tempfile
from collections import Counter
from pathlib import Path

from serving.settings import Settings
from tests.bench._client import Answer, Client, at_a_rate, in_turn, post
from tests.bench._honest import quantile
from tests.bench.attacks import make_folder
from tests.bench.serving import picture
from tests.serving.server import serve_plain

CLIENTS, TIMES = 32, 4.0


async def measure(url: str, warm_s: float, seconds: float) -> tuple[float, list[Answer]]:
    client = Client(url, post("/v1/embed/image", "image/jpeg", picture()))
    try:
        await in_turn(client, CLIENTS, warm_s / 2)
        capacity = len(await in_turn(client, CLIENTS, warm_s)) / warm_s
        return capacity, await at_a_rate(client, TIMES * capacity, seconds)
    finally:
        client.close()


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    warm_s, seconds = (0.5, 1.0) if smoke else (8.0, 30.0)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home:
        folder = make_folder(Path(home), smoke=smoke)
        with serve_plain(Path(home), {"PTFT_MODEL": str(folder), "PTFT_IDLE_S": "600"}) as server:
            capacity, answers = asyncio.run(measure(server.url, warm_s, seconds))
    told = Counter(answer.status for answer in answers)
    accepted = [answer.seconds for answer in answers if answer.status == 200]
    refused = [answer.seconds for answer in answers if answer.status == 429]
    full_queue = Settings(model=Path()).max_queue / capacity
    late = told[504] / max(1, told[200] + told[504])
    print(f"capacity {capacity:.0f} a second; load average before {load:.1f}")
    print(f"{'status':<8}{'count':>7}{'median s':>10}{'p99 s':>9}")
    for status in sorted(told):
        each = [answer.seconds for answer in answers if answer.status == status]
        print(f"{status:<8}{len(each):>7}{quantile(each, 0.5):>10.4f}{quantile(each, 0.99):>9.4f}")
    print(f"a full queue's work takes {full_queue:.2f} s")
    return {
        "answered_of_capacity": round(told[200] / seconds / capacity, 3),
        "accepted_p99_of_allowed": quantile(accepted, 0.99) / max(2.0, 2 * full_queue),
        "refused_p50_ms": quantile(refused, 0.5) * 1e3 if refused else 0.0,
        "refused_p99_ms": quantile(refused, 0.99) * 1e3 if refused else 0.0,
        "late_share": late,
        "lost": told[0],
    }


BARS = {
    "answered_of_capacity": (">=", 0.8),
    "accepted_p99_of_allowed": ("<=", 1.0),
    "refused_p99_ms": ("<=", 10.0),
    "late_share": ("<=", 0.0),
    "lost": ("<=", 0),
}
