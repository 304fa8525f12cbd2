"""CPU-seconds of ``ptft --help``, in a process of its own, the median of ten."""

import os
import subprocess
import sys
from statistics import median

__all__ = ["BARS", "run"]

TIMES = 10
BARS = {"cpu_s": ("<=", 0.25)}


def run(*, smoke: bool = False) -> dict[str, float]:
    found = [_cpu_seconds() for _ in range(2 if smoke else TIMES)]
    print(f"ptft --help, {len(found)} times: {min(found):.2f} to {max(found):.2f} CPU-s")
    return {"cpu_s": round(median(found), 3), "most_s": round(max(found), 3)}


def _cpu_seconds() -> float:
    """User and system time of one, with all that it waited for."""
    before = os.times()
    command = [sys.executable, "-m", "ptft", "--help"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return (
        after.children_user - before.children_user + after.children_system - before.children_system
    )
