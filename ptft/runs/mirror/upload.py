"""Copies a run to its mirror in the background, moment by moment.

A thread does: the run hands it a :class:`Snapshot` at each checkpoint, which takes milliseconds,
and goes on. A moment that is overtaken by the next before its turn is passed over, and counted.
What fails is tried again, ever more rarely, up to once a minute.
"""

import json
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ptft.artifact import RunFiles
from ptft.errors import ArtifactError, MirrorError
from ptft.printable import hide_credentials
from ptft.recipe import RunSection
from ptft.runs.mirror.manifest import Manifest, Position, manifest_name, object_name
from ptft.runs.mirror.newest import read_manifests
from ptft.runs.mirror.snapshot import HeldFile, Snapshot, position_of, take_snapshot
from ptft.runs.mirror.store import MirrorStore
from ptft.speech import say

__all__ = ["Mirror"]

_CLAIM = "claim.json"
_LATEST = frozenset(
    {RunFiles.RUN, RunFiles.LOG, RunFiles.METRICS, RunFiles.PAGE, RunFiles.CURVES}
    | {RunFiles.RECIPE, RunFiles.STAGES_TABLE}
)
"""Records that people look at, which lie under their own names as well."""
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds after a failure
_OPENING = 3  # times that the store is asked as a run begins


class Mirror:
    """The mirror of one run folder, written by this process alone.

    Args:
        section: ``run`` of the recipe, with a ``mirror``.
        folder: of the run or the sequence.
        log: of what it says.

    Raises:
        MissingExtraError: the store's package is not installed.
        MirrorError: the store cannot be reached, or the mirror lies within the run folder.
    """

    def __init__(self, section: RunSection, folder: Path, log: logging.Logger) -> None:
        assert section.mirror is not None
        self._section = section
        self._folder = folder
        self._log = log
        self._store = MirrorStore(section.mirror)
        self._store.check_apart(folder)
        self._writer = secrets.token_hex(8)
        self._changed = threading.Condition()
        self._waiting: Snapshot | None = None
        self._busy = self._closing = self._hurried = False
        self._behind_since: float | None = None
        self._fatal = self._failure = ""
        self._overtaken = 0
        self._seconds = 0.0
        self._said: set[str] = set()
        self._hashed: dict[str, tuple[tuple[int, ...], str]] = {}
        found, here = _patiently(self._open), position_of(folder)
        # those that are further were not whole, or the run would have gone on from there
        self._broken = [manifest for manifest in found if manifest.position > here]
        self._manifests = [manifest for manifest in found if manifest.position <= here]
        self._stored: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def offer(self) -> None:
        """Take the run as it is now; returns at once."""
        began = time.monotonic()
        try:
            snapshot = take_snapshot(self._folder)
        except (OSError, ArtifactError) as error:  # too many open files, say
            self._failure = f"{type(error).__name__}: {error}"
            say(self._log, f"run.mirror: {self._failure}; again at the next checkpoint")
            self._behind_since = self._behind_since or began
            return
        with self._changed:
            if self._closing:
                snapshot.close()
                return
            if self._waiting is not None:
                self._waiting.close()
                self._overtaken += 1
            self._waiting = snapshot
            if self._behind_since is None:
                self._behind_since = snapshot.taken
            self._changed.notify_all()

    def trouble(self) -> str | None:
        """Why the run is to end, in words; None: all is well, or may still become so."""
        if self._fatal:
            return self._fatal
        since = self._behind_since
        if since is None or time.monotonic() - since < 60 * self._section.mirror_max_age_minutes:
            return None
        return (
            f"run.mirror: {self._store.url}: a checkpoint waits to be mirrored for more than "
            f"{self._section.mirror_max_age_minutes:g} minutes (run.mirror_max_age_minutes); "
            f"{self._newest()}; {self._failure or 'the copies are too slow'}"
        )

    def expected_seconds(self) -> float:
        """How long the next copy will take, by the last one; at most the grace."""
        return min(self._seconds, self._section.mirror_grace_seconds)

    def finish(self) -> None:
        """Take the run as it is now, and wait until that is mirrored: for the grace, or where the
        run is finished for as long as a checkpoint may wait.

        Raises:
            MirrorError: it is finished, and its model is not in the mirror.
        """
        finished = position_of(self._folder)[0] == 1
        if finished and self._behind_since is None and self._is_whole():
            return
        self.offer()
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
        grace = self._section.mirror_grace_seconds
        if not self._wait(0.5):
            most = (
                f"{self._section.mirror_max_age_minutes:g} minutes" if finished else f"{grace:g} s"
            )
            say(self._log, f"{self._store.url}: waiting for the last copy, at most {most}")
        done = self._wait(60 * self._section.mirror_max_age_minutes if finished else grace)
        passed = (
            f"; {self._overtaken} copies were overtaken by newer ones" if self._overtaken else ""
        )
        if done:
            say(self._log, f"{self._store.url}: {self._newest()}{passed}")
        elif finished:
            reason = self._fatal or self._failure or "the copy takes too long"
            raise MirrorError(
                f"{self._folder}: finished, but not in its mirror: {reason}; the same command with "
                "--resume auto copies it"
            )
        else:
            reason = self._fatal or self._failure or f"{grace:g} s were too short for the last copy"
            say(self._log, f"{self._store.url}: {self._newest()}{passed}; {reason}")

    def _is_whole(self) -> bool:
        """Whether a finished run is in the mirror already."""
        return bool(self._manifests) and self._manifests[0].position[0] == 1

    def close(self) -> None:
        """End the thread; what is not mirrored by now is not."""
        with self._changed:
            self._closing = True
            if self._waiting is not None:
                self._waiting.close()
                self._waiting = None
            self._changed.notify_all()

    def _newest(self) -> str:
        if not self._manifests:
            return "nothing is mirrored yet"
        finished, stages, step = self._manifests[0].position
        stage = f"stage {stages + 1}, " if stages else ""
        return "mirrored to its end" if finished else f"mirrored to {stage}step {step:,}"

    def _wait(self, seconds: float) -> bool:
        """Whether all is mirrored, after so many seconds at most."""

        def is_idle() -> bool:
            return self._behind_since is None and not self._busy

        with self._changed:
            self._changed.wait_for(lambda: self._fatal or is_idle(), seconds)
            return self._behind_since is None

    def _open(self) -> list[Manifest]:
        """Claim the mirror; whoever wrote there before stops as it sees that."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._store.write(_CLAIM, [json.dumps({"writer": self._writer, "at": at}).encode()])
        return read_manifests(self._store, lambda text: say(self._log, text))

    def _work(self) -> None:
        wait, ready = _FIRST_WAIT, False
        while (snapshot := self._next()) is not None:
            try:
                if not ready:
                    self._take_stock()
                    ready = True
                began = time.monotonic()
                self._copy(snapshot)
                self._seconds = time.monotonic() - began
                wait = _FIRST_WAIT
                self._tidy(snapshot)
                snapshot.close()
            except Exception as error:  # whatever it is: the run is not to end by it
                self._failed(error, wait)
                if self._fatal or not self._again(snapshot, wait):
                    snapshot.close()
                    return
                wait = min(2 * wait, _LONGEST_WAIT) * random.uniform(0.8, 1.0)  # noqa: S311

    def _next(self) -> Snapshot | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or self._waiting is not None)
            snapshot, self._waiting = self._waiting, None
            self._busy = snapshot is not None
            return snapshot

    def _again(self, snapshot: Snapshot, wait: float) -> bool:
        """Wait, then put a moment back in its turn, unless a newer one is there; False: the end."""
        with self._changed:
            if self._hurried:
                self._changed.wait_for(lambda: self._closing, _FIRST_WAIT)
            else:
                self._changed.wait_for(lambda: self._closing or self._hurried, wait)
            if self._closing:
                return False
            if self._waiting is None:
                self._waiting = snapshot
            else:
                snapshot.close()
                self._overtaken += 1
            return True

    def _failed(self, error: Exception, wait: float) -> None:
        kind = "" if isinstance(error, MirrorError) else f"{type(error).__name__}: "
        self._failure = hide_credentials(f"{kind}{error}")
        if not self._fatal:
            say(self._log, f"run.mirror: {self._failure}; again in {wait:.0f} s")
        with self._changed:
            self._changed.notify_all()

    def _take_stock(self) -> None:
        """What is there already, and what a killed copy left there, which is deleted."""
        there = self._store.names("objects")
        known = {
            object_name(entry["sha256"]): entry
            for manifest in self._manifests
            for entry in manifest.files.values()
        }
        self._check_claim()
        self._store.delete(manifest_name(manifest.number) for manifest in self._broken)
        self._store.delete(name for name in there if name not in known)
        self._stored = {
            entry["sha256"] for name, entry in known.items() if there.get(name) == entry["size"]
        }

    def _copy(self, snapshot: Snapshot) -> None:
        """Put a moment into the mirror, then its manifest."""
        if snapshot.left_out:
            self._say_once(
                f"run.mirror: {len(snapshot.left_out)} files are not mirrored, which are links or "
                f"have names that not every system takes (first: {snapshot.left_out[0]})"
            )
        files = {}
        for held in snapshot.files:
            sha256 = self._digest(held)
            files[held.name] = {"sha256": sha256, "size": held.size}
            if sha256 not in self._stored:
                self._store.write(object_name(sha256), held.checked(sha256))
                self._stored.add(sha256)
        self._check_claim()
        number = 1 + max((one.number for one in (*self._manifests, *self._broken)), default=0)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = Manifest(number, snapshot.position, at, files)
        self._store.write(manifest_name(number), [manifest.dump()])
        with self._changed:
            self._manifests.insert(0, manifest)
            # the one that waits is what the mirror is behind by now
            self._behind_since = None if self._waiting is None else self._waiting.taken
            self._failure = ""
            self._changed.notify_all()

    def _tidy(self, snapshot: Snapshot) -> None:
        """What may wait for the next time if it fails: the records for people, old copies."""
        try:
            for held in snapshot.files:
                if held.name in _LATEST:
                    self._store.write(f"latest/{held.name}", held.pieces())
            self._prune()
        except Exception as error:  # each store raises its own
            reason = hide_credentials(str(error))
            say(self._log, f"run.mirror: {reason}; the copy is whole, the rest waits for the next")

    def _digest(self, held: HeldFile) -> str:
        if held.sha256 is not None:
            return held.sha256
        state, sha256 = self._hashed.get(held.name, ((), ""))
        if state != held.state:
            sha256 = held.digest()
            self._hashed[held.name] = (held.state, sha256)
        return sha256

    def _check_claim(self) -> None:
        data = self._store.read(_CLAIM, most=1000)
        if data is None or self._writer.encode() not in data:
            self._fatal = (
                f"run.mirror: {self._store.url}: another process mirrors a run there by now; "
                "allowed: one run at an address, from one machine at a time"
            )
            raise MirrorError(self._fatal)

    def _prune(self) -> None:
        """Delete all but the newest moment of each of the newest positions; each manifest before
        what it alone names."""
        first: dict[Position, Manifest] = {}
        for manifest in self._manifests:
            first.setdefault(manifest.position, manifest)
        kept = list(first.values())[: self._section.keep]
        old = [manifest for manifest in self._manifests if manifest not in kept]
        needed = {sha256 for manifest in kept for sha256 in manifest.objects}
        for manifest in reversed(old):
            self._store.delete([manifest_name(manifest.number)])
            gone = manifest.objects - needed
            self._stored -= gone
            self._store.delete(object_name(sha256) for sha256 in sorted(gone))
            self._manifests.remove(manifest)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(self._log, text)


def _patiently(ask: Callable[[], list[Manifest]]) -> list[Manifest]:
    for left in reversed(range(_OPENING)):
        try:
            return ask()
        except MirrorError:
            if not left:
                raise
            time.sleep(_FIRST_WAIT * (_OPENING - left))
    raise AssertionError
