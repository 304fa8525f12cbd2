"""Bounds that a process puts on itself: they hold, and they end."""

import resource
import signal
import subprocess
import sys

import pytest

from ptft.onnx.limits import Limits

PRELUDE = "from ptft.errors import ArtifactError\nfrom ptft.onnx.limits import Limits\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PRELUDE + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_memory_ends_where_it_is_bounded_and_not_after() -> None:
    done = run(
        "try:\n"
        "    with Limits(60, 1 << 28).held('a'): bytearray(1 << 29)\n"
        "except ArtifactError as error: print(error)\n"
        "print(len(bytearray(1 << 29)))\n"
    )
    refused, taken = done.stdout.splitlines()
    assert refused.startswith("a: running it once takes too much memory; allowed: 60 s of a CPU")
    assert taken == str(1 << 29), done.stderr


def test_time_of_a_cpu_ends_the_process_and_not_after() -> None:
    calm = "import ptft.onnx.limits as l\nl.PATIENCE = 100\n"  # it is not the clock that ends it
    done = run(f"{calm}with Limits(1, 1 << 30).held('a'):\n    while True: pass\n")
    assert done.returncode == -signal.SIGXCPU
    code = "import time\nwith Limits(1, 1 << 30).held('a'): pass\n"
    assert run(f"{code}while time.process_time() < 2.5: pass\n").returncode == 0


def test_a_process_that_waits_for_ever_is_ended_by_its_clock() -> None:
    code = "import ptft.onnx.limits as l, time\nl.PATIENCE = 0.5\n"
    done = run(f"{code}with Limits(1, 1 << 30).held('a'): time.sleep(60)\n")
    assert done.returncode == -signal.SIGALRM
    assert run(f"{code}with Limits(1, 1 << 30).held('a'): pass\ntime.sleep(1)\n").returncode == 0


def test_what_held_before_holds_again() -> None:
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE)
    before = [resource.getrlimit(kind) for kind in kinds]
    with pytest.raises(KeyError), Limits(1000, 1 << 40).held("a"):
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
        raise KeyError
    assert [resource.getrlimit(kind) for kind in kinds] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
