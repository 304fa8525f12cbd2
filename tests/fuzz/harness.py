"""One reading of drawn files, watched: what it raises, how long, how much memory, what it touches.

A reader may return or raise :class:`PtftError` with a message of words; it may not raise anything
else, hang, take memory out of proportion, write, run a program, unpickle, or open a connection.
"""

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy

from ptft.errors import PtftError

__all__ = ["Finding", "Target", "Watch", "alarm", "fuzz", "where"]

SECONDS = 20  # that a reading may take; an ordinary one takes milliseconds
MEMORY = 512 << 20  # bytes that a reading may add to the process: 8 for each pixel of a picture
ADDRESSES = 12 << 30  # bytes of addresses that it may add, so that the machine outlives a finding
_MESSAGE = 20_000  # characters of an error's message

Files = dict[str, bytes]


@dataclass(frozen=True)
class Target:
    """A reader and what it is given.

    Attributes:
        files: strategy of name -> bytes; a name may have folders in it.
        read: reads the folder that holds them.
    """

    files: SearchStrategy[Files]
    read: Callable[[Path], object]


class Finding(AssertionError):  # noqa: N818 - it is what the fuzzer found
    """A reading did what none may do."""


class _MoreThanRead(Finding):
    """It wrote, ran a program, unpickled or opened a connection."""


class Hang(BaseException):
    """A reading took longer than it may; no reader catches it by accident."""


_FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen"),
    *("socket.connect", "pickle.find_class", "webbrowser.open"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move"),
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_seen: list[str] | None = None  # what the hook saw in the reading under way


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in _FORBIDDEN:
        _seen.append(f"{event} {arguments!r}"[:300])
    elif event == "open":
        path, mode, flags = arguments
        written = flags & _WRITES if isinstance(flags, int) else set(mode or "") & set("wax+")
        if written and str(path) not in (os.devnull, "/proc/self/clear_refs"):
            _seen.append(f"open {path!r} for writing")


sys.addaudithook(_audit)


class Watch:
    """Surroundings of readings: a home, a working folder and neighbours that none may touch.

    Args:
        place: an empty folder.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.executions = 0
        self.peak = 0  # bytes that the largest reading added
        self.last: Files | None = None  # what was read last: of a finding, the smallest
        for name in ("home", "cwd", "beside"):
            (place / name).mkdir()
        (place / "beside" / "old.tar").write_bytes(b"a backup")
        (place / "beside" / "room.lock").write_bytes(b"somebody's")
        (place / "cwd" / "notes.txt").write_bytes(b"kept")
        self._before = self._listing()
        _release()

    def read(self, target: Target, files: Files) -> None:
        """One reading. Raises Finding."""
        self.executions += 1
        self.last = files
        with tempfile.TemporaryDirectory(dir=self.place, prefix="artefact-") as name:
            folder = Path(name)
            for inside, data in files.items():
                (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                (folder / inside).write_bytes(data)
            with alarm(), _surroundings(self.place):
                try:
                    self._watched(target, folder)
                except _MoreThanRead:  # what a library does once, when it is first imported
                    self._watched(target, folder)
        if (after := self._listing()) != self._before:
            raise Finding(f"touched outside its folder: {sorted(set(after) ^ set(self._before))}")

    def _watched(self, target: Target, folder: Path) -> None:
        global _seen
        before = _reset_peak()
        _seen = seen = []
        try:
            target.read(folder)
        except PtftError as error:
            if len(str(error)) > _MESSAGE or not str(error).strip():
                raise Finding(f"a message of {len(str(error))} characters") from None
        except Hang:
            raise Finding(f"still reading after {SECONDS} s") from None
        except Exception as error:  # whatever it is, nobody raised it on purpose
            raise Finding(f"{type(error).__name__}: {str(error)[:300]}") from error
        finally:
            _seen = None
        added = _peak() - before
        self.peak = max(self.peak, added)
        if added > MEMORY:
            raise Finding(f"took {added >> 20} MiB; a reading may take {MEMORY >> 20}")
        if seen:
            raise _MoreThanRead(f"did more than read: {'; '.join(seen)}")

    def _listing(self) -> list[tuple[str, int, int]]:
        found = []
        for top in ("home", "cwd", "beside"):
            for path in sorted((self.place / top).rglob("*")):
                state = path.lstat()
                found.append((str(path.relative_to(self.place)), state.st_size, state.st_mtime_ns))
        return found


def fuzz(
    watch: Watch,
    target: Target,
    examples: int,
    number: int | None = None,
    *,
    smallest: bool = False,
) -> None:
    """Readings of ``examples`` drawn inputs.

    Args:
        number: decides the draws; absent: the same ones every time.
        smallest: look for the smallest input with a finding, which reads it many times more.

    Raises:
        Finding: the input is in its notes, and in ``watch.last``.
    """

    def one(files: Files) -> None:
        watch.read(target, files)

    with tempfile.TemporaryDirectory() as home:
        set_hypothesis_home_dir(home)
        bound = settings(
            max_examples=examples,
            derandomize=number is None,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink] if smallest else [Phase.generate],
        )
        test = bound(given(target.files)(one))
        if number is not None:
            test = seed(number)(test)
        try:
            test()
        finally:
            set_hypothesis_home_dir(None)


def where(error: BaseException) -> str:
    """The line of code that an error came from, to tell one finding from another."""
    cause = error.__cause__ or error
    frames = traceback.extract_tb(cause.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """Raise Hang inside after ``SECONDS``."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _surroundings(place: Path) -> Iterator[None]:
    """Another home, working folder and bound of addresses; what was is put back."""
    names = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    kept = {name: os.environ.get(name) for name in names}
    cwd, bytecode = Path.cwd(), sys.dont_write_bytecode
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = _status("VmSize") + ADDRESSES
    os.environ.update({name: str(place / "home") for name in names})
    os.chdir(place / "cwd")
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_AS, (bound if hard < 0 else min(bound, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        sys.dont_write_bytecode = bytecode
        os.chdir(cwd)
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _release() -> None:
    """Give back what is free here: a reading that reused it would seem to take none."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)


def _reset_peak() -> int:
    """Bytes in memory now, from which the system counts the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"/proc/self/status has no {key}")
