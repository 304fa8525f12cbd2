"""Which process works at which job of a comparison, where several share a folder or an address.

What is relied on: that of several processes which create a file of one name, one succeeds (links or
O_EXCL on a shared disk; a conditional write in a bucket), and that what was written is read and
listed by others soon after. No clock is compared with another machine's, and nothing is locked.

- ``claims/<job>.<n>.json``: the n-th claim of a job, created by one worker. The newest one counts.
- ``workers/<worker>.json``: a count that the worker writes anew every few seconds.

Whoever finds the newest claim's worker dead creates claim n + 1. A worker is dead when it said that
it ended; when it ran on this machine, and its process is no more; or when its count stood still for
its lease, by the clock of whoever looks.
"""

import json
import logging
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ptft.errors import ArtifactError, MirrorError
from ptft.files.bounds import parse_json
from ptft.runs.mirror.store import MirrorStore
from ptft.speech import say

__all__ = ["Claims", "Holder"]

_BEATS = 6  # in a lease
_MOST = 4096  # bytes of a claim or a count
_NAME = re.compile(r"claims/(.+)\.(\d+)\.json")
_WORKER = re.compile(r"[0-9a-f]{16}")
_LEASES = (1.0, 86_400.0)  # seconds that a claim may say


@dataclass(frozen=True)
class Holder:
    """Who holds a job.

    Attributes:
        worker: 16 hexadecimal digits.
        where: it runs, for people.
        process: tells whether it still does, on the same machine.
        lease: seconds of its silence after which it is dead.
    """

    worker: str
    where: str
    process: Mapping[str, Any]
    lease: float


class Claims:
    """The claims of one process, which tells others that it lives for as long as it is entered.

    Args:
        store: the shared place.
        lease: seconds without a sign after which others may take this process's jobs over.
        log: of what it says.
        process: what tells it from others; absent: this process's.

    Raises:
        MirrorError: (from every method, too) the store does not answer, or cannot hold claims.
    """

    def __init__(
        self,
        store: MirrorStore,
        *,
        lease: float,
        log: logging.Logger,
        process: Mapping[str, Any] | None = None,
    ) -> None:
        self.worker = secrets.token_hex(8)
        self._store = store
        self._lease = lease
        self._log = log
        self._process = _this_process() if process is None else dict(process)
        self._held: dict[str, int] = {}
        self._seen: dict[str, tuple[bytes | None, float]] = {}
        self._holders: dict[str, Holder] = {}
        self._count = 0
        self._told = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beats, name="claims", daemon=True)

    def __enter__(self) -> Self:
        self._store.check_creates(f"claims/.{self.worker}")
        self.beat()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(self._lease)
        with suppress(MirrorError):  # else its lease tells
            self._store.write(self._own, [b"ended"])

    def take(self, job: str, newest: Mapping[str, int]) -> bool:
        """Claim a job, if nobody who lives holds it.

        Args:
            newest: as :meth:`newest` gave.
        """
        number = newest.get(job, 0)
        if number and not self.is_free(job, number):
            return False
        claim = {
            "worker": self.worker,
            "where": f"process {os.getpid()} on {platform.node()}",
            "process": self._process,
            "lease": self._lease,
        }
        taken = self._store.create(_name(job, number + 1), json.dumps(claim).encode())
        if taken:
            self._held[job] = number + 1
        return taken

    def newest(self) -> dict[str, int]:
        """The number of each job's newest claim."""
        found: dict[str, int] = {}
        for name in self._store.names("claims"):
            if match := _NAME.fullmatch(name):
                found[match[1]] = max(found.get(match[1], 0), int(match[2]))
        return found

    def lost(self, newest: Mapping[str, int]) -> set[str]:
        """Jobs of this process that another took over, which held it for dead."""
        return {job for job, number in self._held.items() if newest.get(job, 0) > number}

    def is_free(self, job: str, number: int) -> bool:
        """Whether the worker of a claim is known to be dead."""
        holder = self.holder(job, number)
        return holder.worker != self.worker and self._is_dead(holder)

    def holder(self, job: str, number: int) -> Holder:
        """Who made a claim."""
        name = _name(job, number)
        if name not in self._holders:
            data = self._store.read(name, most=_MOST)
            try:
                self._holders[name] = _holder(data, name)
            except ArtifactError:  # half of it, on a disk without links; or nobody's
                return Holder("", f"an unknown process ({name})", {}, self._lease)
        return self._holders[name]

    def living(self, jobs: Collection[str]) -> Holder | None:
        """Wait until it is known whether anybody else works at one of the jobs; who that is."""
        others = [claim for claim in self.newest().items() if claim[0] in jobs]
        first: dict[str, bytes | None] = {}
        while True:
            held = [self.holder(*claim) for claim in others if not self.is_free(*claim)]
            if not held:
                return None
            for one in held:
                data = self._look(one)
                if _is_here(one.process) or data != first.setdefault(one.worker, data):
                    return one
            if not self._told:
                say(self._log, f"waiting whether {held[0].where} still works at this comparison")
                self._told = True
            time.sleep(min(1.0, self._lease / _BEATS))

    def _is_dead(self, holder: Holder) -> bool:
        if _has_gone(holder.process):
            return True
        data = self._look(holder)
        silent = time.monotonic() - self._seen[holder.worker][1]
        return data == b"ended" or silent > holder.lease

    def _look(self, holder: Holder) -> bytes | None:
        path = f"workers/{holder.worker}.json"
        data = self._store.read(path, most=_MOST) if holder.worker else None
        if holder.worker not in self._seen or self._seen[holder.worker][0] != data:
            self._seen[holder.worker] = data, time.monotonic()
        return data

    @property
    def _own(self) -> str:
        return f"workers/{self.worker}.json"

    def _beats(self) -> None:
        failed = False
        while not self._ended.wait(self._lease / _BEATS):
            try:
                self.beat()
                failed = False
            except MirrorError as error:
                if not failed:
                    say(self._log, f"{error}; others may take this process for dead")
                failed = True

    def beat(self) -> None:
        """Tell others that this process lives, which a thread does while it is entered."""
        self._count += 1
        self._store.write(self._own, [json.dumps({"count": self._count}).encode()])


def _name(job: str, number: int) -> str:
    return f"claims/{job}.{number}.json"


def _holder(data: bytes | None, where: str) -> Holder:
    if data is None:
        raise ArtifactError(f"{where}: missing")
    values = parse_json(data, where, error=ArtifactError)
    if not isinstance(values, dict):
        raise ArtifactError(f"{where}: no claim")
    worker, told, process = (values.get(key) for key in ("worker", "where", "process"))
    lease = values.get("lease")
    if (
        not isinstance(worker, str)
        or _WORKER.fullmatch(worker) is None
        or not isinstance(told, str)
        or not isinstance(process, dict)
        or not isinstance(lease, int | float)
        or not _LEASES[0] <= lease <= _LEASES[1]
    ):
        raise ArtifactError(f"{where}: no claim")
    return Holder(worker, told, process, float(lease))


def _this_process() -> dict[str, Any]:
    """What tells this process from every other, and this machine and its view of processes."""
    found: dict[str, Any] = {"pid": os.getpid()}
    with suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found["space"] = str(Path("/proc/self/ns/pid").readlink())
        found["started"] = _started(os.getpid())
    return found


def _is_here(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine is still there."""
    return _can_see(process) and _started(process.get("pid")) == process.get("started")


def _has_gone(process: Mapping[str, Any]) -> bool:
    """Whether a process was of this machine, and is no more."""
    return _can_see(process) and _started(process.get("pid")) != process.get("started")


def _can_see(process: Mapping[str, Any]) -> bool:
    here = _this_process()
    keys = ("boot", "space", "started")
    if any(not isinstance(process.get(key), str) for key in keys):
        return False
    return all(process[key] == here.get(key) for key in ("boot", "space"))


def _started(pid: Any) -> str | None:
    """When a process began, in ticks of its machine; None: there is none, or it only waits to be
    buried."""
    if not isinstance(pid, int):
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]
