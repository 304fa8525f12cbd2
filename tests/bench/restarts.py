"""Restarts and kills under load: what a client that asks ``/readyz`` loses.

Twice eight clients ask without a pause. First of two services of which one is always ready, and of
which one after the other is stopped by SIGTERM and started anew, 20 times: the clients send to one
that was ready when ``/readyz`` was last asked. Then of one service whose worker is killed 20 times
(``kill -9``): what is answered by 503 is asked again after its Retry-After. Counts what was lost,
requests without an answer or with one that is neither 200 nor, between workers, 503; and how many
of those the worker had when it was killed.
"""

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.bench.attacks import make_folder
from tests.serving.server import Server, serve_plain

CLIENTS, TIMES = 8, 20
POLL_S = 0.2
TEXT = json.dumps({"texts": ["a cat", "a dog"]}).encode()
MEDIA = {"content-type": "application/json"}


@dataclass
class Lost:
    """A request that has no answer, or a wrong one; times are monotonic."""

    began: float
    ended: float
    how: str


@dataclass
class Clients:
    """Who asks, and what came of it.

    Args:
        where: the address to send to now; called for each request.
    """

    where: Callable[[], str]
    answered: int = 0
    told_to_wait: int = 0
    lost: list[Lost] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self._over.is_set():
                began = time.monotonic()
                try:
                    url = f"{self.where()}/v1/embed/text"
                    answer = client.post(url, content=TEXT, headers=MEDIA)
                except httpx.HTTPError as error:
                    self.lost.append(Lost(began, time.monotonic(), type(error).__name__))
                    continue
                if answer.status_code == 200:
                    self.answered += 1
                elif answer.status_code == 503 and "retry-after" in answer.headers:
                    self.told_to_wait += 1
                    self._over.wait(float(answer.headers["retry-after"]) / 4)
                else:
                    self.lost.append(Lost(began, time.monotonic(), str(answer.status_code)))


class Ready:
    """Which of several services were ready when last asked: what a Kubernetes Service does."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self._ready: list[str] = []
        self._turn = 0
        self._over = threading.Event()
        self._polling = threading.Thread(target=self._poll)

    def __enter__(self) -> "Ready":
        self._polling.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._polling.join()

    def where(self) -> str:
        """The next of them."""
        while not (ready := self._ready):
            time.sleep(0.01)
        self._turn += 1
        return ready[self._turn % len(ready)]

    def wait_for(self, url: str) -> None:
        """Until it has been seen to be ready."""
        while url not in self._ready:
            time.sleep(0.01)

    def _poll(self) -> None:
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not self._over.wait(POLL_S):
                found = []
                for url in list(self.urls):
                    with contextlib.suppress(httpx.HTTPError):
                        if client.get(f"{url}/readyz").status_code == 200:
                            found.append(url)
                self._ready = found


def restart(folder: Path, home: Path, times: int) -> tuple[Clients, Counter[str]]:
    """Two services; one after the other is replaced."""
    settings = {"PTFT_MODEL": str(folder), "PTFT_THREADS": "1"}
    with contextlib.ExitStack() as stack, Ready() as ready:

        def start() -> tuple[Server, contextlib.ExitStack]:
            mine = stack.enter_context(contextlib.ExitStack())
            server = mine.enter_context(serve_plain(home, settings))
            ready.urls.append(server.url)
            ready.wait_for(server.url)
            return server, mine

        old = start()
        clients = Clients(ready.where)
        with clients.asking():
            for _ in range(times):
                new = start()
                server, running = old
                running.close()  # SIGTERM, and until it has ended
                ready.urls.remove(server.url)
                old = new
            time.sleep(0.5)
    return clients, Counter(one.how for one in clients.lost)


def kill(folder: Path, home: Path, times: int) -> tuple[Clients, int, Counter[str]]:
    """One service, its worker killed; how many it held, and how those were lost that it did not."""
    settings = {"PTFT_MODEL": str(folder), "PTFT_THREADS": "1"}
    kills: list[tuple[float, float]] = []
    with serve_plain(home, settings) as server:
        clients = Clients(lambda: server.url)
        with clients.asking():
            for _ in range(times):
                before = clients.answered
                while clients.answered < before + 4 * CLIENTS:
                    time.sleep(0.01)
                worker = server.worker()
                began = time.monotonic()
                os.kill(worker, signal.SIGKILL)
                while _lives(worker):
                    time.sleep(0.001)
                kills.append((began, time.monotonic()))
                while not _answers(server.url):
                    time.sleep(0.05)
    held = [
        one
        for one in clients.lost
        if any(one.began <= gone and one.ended >= began for began, gone in kills)
    ]
    others = [one for one in clients.lost if one not in held]
    return clients, len(held), Counter(one.how for one in others)


def _lives(pid: int) -> bool:
    """Whether a process that was killed still has its connections: they are closed with the last of
    its threads, and then its supervisor takes note of it."""
    return Path(f"/proc/{pid}").exists()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    times = 1 if smoke else TIMES
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home:
        folder = make_folder(Path(home), smoke=True)
        restarted, lost = restart(folder, Path(home), times)
        killed, held, others = kill(folder, Path(home), times)
    print(f"load average before {load:.1f}; {CLIENTS} clients")
    print(f"{'':<12}{'times':>6}{'answered':>10}{'503':>6}{'held':>6}{'lost':>6}")
    print(f"{'restarts':<12}{times:>6}{restarted.answered:>10}{restarted.told_to_wait:>6}{0:>6}"
          f"{lost.total():>6}  {dict(lost)}")  # fmt: skip
    print(f"{'kills':<12}{times:>6}{killed.answered:>10}{killed.told_to_wait:>6}{held:>6}"
          f"{others.total():>6}  {dict(others)}")  # fmt: skip
    return {
        "lost_by_restarts": lost.total(),
        "lost_by_kills": others.total(),
        "held_by_killed": held,
        "told_to_wait": killed.told_to_wait,
    }


BARS = {"lost_by_restarts": ("<=", 0), "lost_by_kills": ("<=", 0)}
