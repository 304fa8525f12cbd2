"""Bounds that a process puts on itself while it runs a model of somebody else's.

Past its memory an allocation fails, which is an error of whatever asked for it; past its CPU or its
clock the kernel ends the process (SIGXCPU, SIGALRM), whatever it is doing and whatever it holds.
"""

import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ptft.artifact import ModelInfo
from ptft.errors import ArtifactError

__all__ = ["OWN_SIGNALS", "PATIENCE", "Limits", "limits_of"]

_MEMORY, _MEMORY_EACH = 6 << 30, 4  # bytes of addresses, and more for each byte of the files
_CPU, _CPU_EACH = 120, 240  # seconds, and more for each GiB of the files
PATIENCE = 4  # times the seconds, on a machine that does other things as well

OWN_SIGNALS = frozenset({"SIGXCPU", "SIGALRM", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"})
"""Signals by which what a process runs ends it, and nobody else."""


@dataclass(frozen=True)
class Limits:
    """Attributes:
    seconds: of a CPU.
    memory: bytes of addresses.
    """

    seconds: int
    memory: int

    def __str__(self) -> str:
        return f"allowed: {self.seconds} s of a CPU and {self.memory / 2**30:.1f} GiB of addresses"

    @contextmanager
    def held(self, what: object) -> Iterator[None]:
        """Bound this process, beyond what it has taken already, until the block ends.

        Args:
            what: is run, for the message.

        Raises:
            ArtifactError: the block takes more memory; or the system has no such bounds (Windows).
        """
        try:
            import resource
        except ImportError:
            raise ArtifactError(
                "this system bounds no process's memory, so a model of somebody else's is not run "
                "on it"
            ) from None
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = math.ceil(used.ru_utime + used.ru_stime)
        wanted = {
            resource.RLIMIT_CPU: spent + self.seconds,
            resource.RLIMIT_AS: _addresses() + self.memory,
            resource.RLIMIT_CORE: 0,
        }
        before = {kind: resource.getrlimit(kind) for kind in wanted}
        try:
            for kind, most in wanted.items():
                soft, hard = before[kind]
                least = [one for one in (soft, hard, most) if one != resource.RLIM_INFINITY]
                resource.setrlimit(kind, (min(least), hard))
            signal.setitimer(signal.ITIMER_REAL, PATIENCE * self.seconds)
            yield
        except MemoryError:
            raise ArtifactError(f"{what}: running it once takes too much memory; {self}") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for kind, limits in before.items():
                resource.setrlimit(kind, limits)


def limits_of(info: ModelInfo) -> Limits:
    """What a model may take that is run for the first time, by the bytes of its ONNX files: 120 s
    of a CPU and 240 for each GiB; 6 GiB of addresses and 4 bytes for each byte."""
    size = sum(entry["size"] for name, entry in info.files.items() if ".onnx" in name)
    return Limits(_CPU + _CPU_EACH * size // 2**30, _MEMORY + _MEMORY_EACH * size)


def _addresses() -> int:
    """Bytes of addresses that this process has; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
