"""Four honest clients in a process of their own, and a worker's memory, while something goes on.

``with Honest(url) as honest`` starts them: a text, a picture, ``/livez`` and a classification, each
asked again and again with a pause of 0.1 s, over a connection that is kept. ``python -m
tests.bench._honest URL`` is that process: a line of JSON an answer.
"""

import contextlib
import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import httpx
import numpy as np

from tests.serving.attacks import classification, small_photo

__all__ = ["Answer", "Honest", "Memory", "quantile", "resident_mb"]

PAUSE_S = 0.1
PATIENCE_S = 40.0


class Answer(NamedTuple):
    """When it was asked for (monotonic), by whom, its status, and after how many seconds."""

    began: float
    who: str
    status: str
    seconds: float


def quantile(seconds: Sequence[float], share: float) -> float:
    """Nearest rank; nan of nothing."""
    if not len(seconds):
        return math.nan
    return float(np.quantile(seconds, share, method="inverted_cdf"))


def resident_mb(pid: int) -> float:
    """Resident memory of a process; nan once it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return math.nan
    return next((int(one.split()[1]) / 1024 for one in lines if one.startswith("VmRSS")), math.nan)


class Honest:
    """The clients; their answers so far in ``answers``."""

    def __init__(self, url: str) -> None:
        self.answers: list[Answer] = []
        self._command = [sys.executable, "-m", "tests.bench._honest", url]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reading.join()
        self._process.wait()

    def wait(self) -> None:
        """Until each has had an answer."""
        while len({one.who for one in list(self.answers)}) < len(_asks()):
            assert self._process.poll() is None, "the clients have ended"
            time.sleep(0.05)

    def between(self, start: float, end: float) -> list[Answer]:
        """Those that overlap a time."""
        return [one for one in self.answers if one.began <= end and one.began + one.seconds > start]

    def slowest(self, start: float, end: float, share: float = 0.99) -> float:
        """A quantile of the seconds of the client that fares worst; all together, one that waits
        long would hide behind those that do not."""
        each: dict[str, list[float]] = {}
        for one in self.between(start, end):
            each.setdefault(one.who, []).append(one.seconds)
        return max((quantile(seconds, share) for seconds in each.values()), default=math.nan)

    def statuses(self, start: float, end: float) -> Counter[str]:
        """How they were answered."""
        return Counter(one.status for one in self.between(start, end))

    def normal_after(self, since: float, limit: float, most: float) -> float:
        """Seconds after ``since`` from which on nobody waits longer than ``limit`` or is refused;
        inf where that takes more than ``most``."""
        while time.monotonic() < since + most:
            bad = [
                o.began + o.seconds for o in self.answers if o.status != "200" or o.seconds > limit
            ]
            good = {o.who for o in self.answers if o.began >= max([since, *bad])}
            if len(good) == len(_asks()):
                return max([0.0, *(when - since for when in bad)])
            time.sleep(0.05)
        return math.inf

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.answers.append(Answer(*json.loads(line)))


class Memory:
    """The highest that a process's resident memory rises to, looked at 50 times a second."""

    def __init__(self, pid: int) -> None:
        self.peak = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._looking.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, resident_mb(self._pid))


def _asks() -> dict[str, tuple[str, str, bytes, str]]:
    picture = small_photo(320)
    text = json.dumps({"texts": ["a cat"]}).encode()
    few = classification(picture, ["a cat", "a dog"], ["a photo of {}."])
    return {
        "text": ("POST", "/v1/embed/text", text, "application/json"),
        "picture": ("POST", "/v1/embed/image", picture, "image/jpeg"),
        "livez": ("GET", "/livez", b"", ""),
        "classify": ("POST", "/v1/classify", few, "application/json"),
    }


def _ask(url: str, who: str, over: threading.Event) -> None:
    method, path, body, media = _asks()[who]
    headers = {"content-type": media} if media else {}
    with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
        while not over.is_set():
            began = time.monotonic()
            try:
                status = str(
                    client.request(method, path, content=body, headers=headers).status_code
                )
            except httpx.HTTPError as error:
                status = type(error).__name__
            line = json.dumps(Answer(began, who, status, time.monotonic() - began))
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            over.wait(PAUSE_S)


def main(url: str) -> None:
    """Until the input ends."""
    over = threading.Event()
    threads = [threading.Thread(target=_ask, args=(url, who, over)) for who in _asks()]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
