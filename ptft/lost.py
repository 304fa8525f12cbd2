"""Ranks of other machines that are gone: found within a stated time, and told in one line.

A machine that vanishes (its power, its link) sends nothing that would end a collective, and
collectives wait for hours, since the first rank may evaluate for one. The kernel's probes tell the
two apart: a rank that is busy answers them, for its kernel does.
"""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist

from ptft.errors import LostRankError, TrainingError

__all__ = ["met", "probed", "told_of_the_lost"]

_OPEN = Path("/proc/self/fd")
_BROKEN = re.compile(
    "connection|timed out|timeout|broken pipe|read error|write error|unreachable|no route|remote",
    re.IGNORECASE,
)


@contextlib.contextmanager
def probed(seconds: float) -> Iterator[None]:
    """TCP connections that are made inside end, from then on, where the other machine answers
    nothing for so long: what is under way on them fails.

    By keepalive, and TCP_USER_TIMEOUT (RFC 5482) where something was sent. On Linux; elsewhere it
    does nothing.

    Args:
        seconds: at least 1.
    """
    before = set(_sockets().values())
    yield
    for number, name in _sockets().items():
        if name not in before:
            with contextlib.suppress(OSError):  # closed meanwhile, or not connected
                _probe(number, seconds)


def _sockets() -> dict[int, str]:
    """This process's sockets: descriptor -> the system's name."""
    found = {}
    for entry in _OPEN.iterdir() if _OPEN.is_dir() else ():
        with contextlib.suppress(OSError):
            name = str(entry.readlink())
            if name.startswith("socket:"):
                found[int(entry.name)] = name
    return found


def _probe(number: int, seconds: float) -> None:
    with socket.socket(fileno=os.dup(number)) as same:
        if same.family not in (socket.AF_INET, socket.AF_INET6) or same.type != socket.SOCK_STREAM:
            return
        same.getpeername()  # one that listens has none
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # three probes in the second half of the time; once one is out, the time alone counts
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(seconds / 2)))
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(seconds / 6)))
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))


@contextlib.contextmanager
def met(rank: int, size: int) -> Iterator[None]:
    """Around the meeting of the ranks.

    Raises:
        TrainingError: they did not all come, or do not reach each other.
    """
    try:
        yield
    except RuntimeError as error:
        if not _of_ranks(error):
            raise
        raise TrainingError(
            f"rank {rank}: the {size} ranks did not meet: one ended before, or machines do not "
            f"reach each other ({_first_line(error)})"
        ) from error


@contextlib.contextmanager
def told_of_the_lost(rank: int, size: int) -> Iterator[None]:
    """Inside, a rank that is gone is one line; torch tells of a connection and its traceback.

    Raises:
        LostRankError: another rank or its machine is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if size == 1 or not _of_ranks(error) or not _BROKEN.search(_first_line(error)):
            raise
        raise LostRankError(
            f"rank {rank}: another rank or its machine is gone; the same command with "
            f"--resume auto goes on from the newest checkpoint ({_first_line(error)})"
        ) from error


def _of_ranks(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)  # gloo has no class


def _first_line(error: RuntimeError) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
