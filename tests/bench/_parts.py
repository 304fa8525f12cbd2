"""What benchmarks share: absent parts, the command, a process for a measurement."""

import contextlib
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

__all__ = ["Absent", "apart", "cpu_minutes", "ptft", "ptft_beside", "shared_data"]

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


def ptft_beside(
    commands: Mapping[str, Sequence[object]], *, smoke: bool = False
) -> dict[str, float]:
    """Run ``ptft`` several times side by side, a core each, in a smoke run one after another in
    this process; CPU minutes of each by its name.
    """
    if smoke:
        used = {}
        for name, words in commands.items():
            before = cpu_minutes()
            ptft(*words, smoke=True)
            used[name] = cpu_minutes() - before
        return used
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "ptft", *map(str, words)],
            env=environment,
            stdout=sys.stderr,
            start_new_session=True,  # a share of the machine of its own
        )
        for name, words in commands.items()
    }
    used = {}
    for name, process in running.items():
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        used[name] = (usage.ru_utime + usage.ru_stime) / 60
    for name, process in running.items():
        if process.returncode:
            raise SystemExit(f"ptft {' '.join(map(str, commands[name]))}: {process.returncode}")
    return used


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
