"""torchrun's exit code as the ranks': what a launcher tells "start again" from "failed" by."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptft.launch.ranks import run_ranks

RANK = """
import os, signal, sys, time
from pathlib import Path
way = sys.argv[1]
if way == "signal":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit(75))
    Path(sys.argv[2], os.environ["RANK"]).touch()
    time.sleep(120)
if way == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(way))
"""


def options(folder: Path, way: str) -> list[str]:
    script = folder / "rank.py"
    script.write_text(RANK)
    words = ["--standalone", "--nproc-per-node", "2", "--shutdown-timeout", "30"]
    return [*words, "--signals-to-handle", "SIGTERM,SIGUSR2", str(script), way, str(folder)]


@pytest.mark.parametrize(("way", "code"), [("0", 0), ("75", 75), ("killed", 137)])
def test_the_code_is_that_of_a_rank(way: str, code: int, tmp_path: Path) -> None:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        assert run_ranks(options(tmp_path, way)) == code
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_a_signal_reaches_the_ranks_and_means_start_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ptft.launch.ranks", *options(tmp_path, "signal")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not all((tmp_path / rank).exists() for rank in "01"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR2)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "the ranks were stopped by SIGUSR2" in said
