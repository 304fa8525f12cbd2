"""What benchmarks share: absent parts, the command, a process for a measurement."""

import contextlib
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

__all__ = ["Absent", "apart", "cpu_minutes", "ptft", "shared_data"]

_T = TypeVar("_T")
_SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


class Absent(Exception):  # noqa: N818 - what is absent is no error of the benchmark
    """A real part that a benchmark needs is not on this machine: the message names it.

    Args:
        reason: which part, and how to come by it.
        figures: of what could be measured without it.
    """

    def __init__(self, reason: str, figures: Mapping[str, float] | None = None) -> None:
        super().__init__(reason)
        self.figures = dict(figures or {})


def shared_data(*names: str) -> Path:
    """The folder of real data beside the checkout.

    Args:
        names: of its folders, all of them needed.

    Raises:
        Absent: one is not there.
    """
    for name in names:
        if not (_SHARED / name).is_dir():
            raise Absent(f"../shared/data/{name} is not beside the checkout")
    return _SHARED


def ptft(*arguments: object, smoke: bool = False) -> float:
    """Run ``ptft`` with two cores at most in all, in a process of its own, in a smoke run in this
    one; minutes on the clock.
    """
    words = [str(argument) for argument in arguments]
    started = time.monotonic()
    if smoke:
        from ptft.cli.main import app

        with contextlib.redirect_stdout(sys.stderr):
            app(words, standalone_mode=False)
    else:
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        command = [sys.executable, "-m", "ptft", *words]
        done = subprocess.run(command, env=environment, stdout=sys.stderr)
        if done.returncode:
            raise SystemExit(f"ptft {' '.join(words)}: exit {done.returncode}")
    return (time.monotonic() - started) / 60


def cpu_minutes() -> float:
    """Used so far by this process and all those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used) / 60


def apart(function: Callable[..., _T], *arguments: object) -> _T:
    """What ``function`` returns in a process of its own, with its own peak of memory: forked from
    one that has imported torch and open_clip and has done nothing else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.bench._loaded"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()
