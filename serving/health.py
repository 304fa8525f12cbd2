"""Whether the service works: told by what it does, not by what it is.

``/readyz`` asks for an inference of both towers within the last seconds; where traffic has given
none, a grey picture and a short text go through the same queues as everybody's. A thread of its own
watches for what no coroutine could see, a batch that does not end or an event loop that stands
still, and ends the process with a message: whoever supervises it starts it anew.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable

import numpy as np

from serving.admission import Admission
from serving.encoder import Encoder
from serving.settings import Settings

__all__ = ["EXIT_CODE", "FRESH_S", "PATIENCE_S", "Health"]

logger = logging.getLogger("bentoml.ptft")

EXIT_CODE = 70  # sysexits.h: EX_SOFTWARE
FRESH_S = 2.0
"""An inference that is so old still proves something."""

PATIENCE_S = 2.5
"""For a proof; Kubernetes' probe waits 3."""

_LOOK_S = 0.5
_BEAT_S = 0.5
_STOPPED_S = 5.0


class Health:
    """Of a worker.

    Attributes:
        failure: why the model cannot be served; empty while it can, or may.
        encoder: the model, once it is loaded.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self.failure = ""
        self.encoder: Encoder | None = None
        self._hang_s = settings.hang_s
        self._admission = admission
        self._end = end
        self._beat = time.monotonic()
        self._stopped = threading.Event()
        self._beating: asyncio.Task[None] | None = None
        self._proving: asyncio.Task[str] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._beat = time.monotonic()
        self._beating = asyncio.get_running_loop().create_task(self._keep_beating())
        threading.Thread(target=self._watch, name="ptft-health", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()
        if self._beating is not None:
            self._beating.cancel()

    async def reason_not_ready(self) -> str:
        """Why no request should be sent here; empty if one should."""
        if self.encoder is None or self.failure:
            return self.failure or "loading"
        if self._is_proven(self.encoder):
            return ""
        if self._proving is None or self._proving.done():
            self._proving = asyncio.create_task(self._prove(self.encoder))
        try:
            return await asyncio.wait_for(asyncio.shield(self._proving), PATIENCE_S)
        except TimeoutError:
            return f"no inference within {PATIENCE_S:g} s"

    def reason_not_alive(self) -> str:
        """Why it makes no sense to go on; empty if it does."""
        return self.failure or self._hangs() or self._broken()

    def _is_proven(self, encoder: Encoder) -> bool:
        now = time.monotonic()
        return all(
            tower.failing_since is None and now - tower.succeeded < FRESH_S
            for tower in encoder.towers
        )

    async def _prove(self, encoder: Encoder) -> str:
        height, width = encoder.model.preprocess.size
        grey = np.full((height, width, 3), 127, np.uint8)
        lane = self._admission.open()
        try:
            looking = encoder.places.submit(lane, [grey]) if encoder.places is not None else []
            embedding = (encoder.embed(lane, grey), encoder.encode_texts(lane, ["a"]))
            await asyncio.gather(*embedding, *looking)
        except Exception as error:
            return f"an inference failed: {type(error).__name__}"
        return ""

    async def _keep_beating(self) -> None:
        while True:
            self._beat = time.monotonic()
            if self._failing_s() > 0 and (self._proving is None or self._proving.done()):
                assert self.encoder is not None
                self._proving = asyncio.create_task(self._prove(self.encoder))
            await asyncio.sleep(_BEAT_S)

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._stopped.wait(_LOOK_S):
            slept, looked = time.monotonic() - looked, time.monotonic()
            if slept > _STOPPED_S:  # the whole process was stopped, not a part of it
                self._beat = looked
            else:  # by as much as this thread came late the machine was busy with others
                self._beat += max(0.0, slept - _LOOK_S)
            if reason := self._hangs() or self._broken():
                logger.critical("%s; the process ends (PTFT_HANG_S=%g)", reason, self._hang_s)
                for handler in logging.getLogger().handlers + logger.handlers:
                    handler.flush()
                self._end(EXIT_CODE)
                return

    def _hangs(self) -> str:
        """What has been running for longer than twice the longest batch and ``hang_s``."""
        if (still := time.monotonic() - self._beat) > self._hang_s and not self._stopped.is_set():
            return f"nothing has been answered for {still:.0f} s: the event loop stands still"
        encoder = self.encoder
        if encoder is None:
            return ""
        longest = max(tower.longest for tower in encoder.towers)
        busy = encoder.busy_for()
        if busy > 2 * longest + self._hang_s:
            return (
                f"a batch has been running for {busy:.0f} s, where the longest took {longest:.1f}"
            )
        return ""

    def _broken(self) -> str:
        seconds = self._failing_s()
        if seconds > self._hang_s:
            return f"every batch of a tower has failed for {seconds:.0f} s"
        return ""

    def _failing_s(self) -> float:
        """Seconds since which batches of a tower have only failed; 0 where they do not."""
        encoder = self.encoder
        if encoder is None:
            return 0.0
        since = [tower.failing_since for tower in encoder.towers]
        now = time.monotonic()
        return max((now - one for one in since if one is not None), default=0.0)
