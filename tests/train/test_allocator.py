"""The allocator keeps what a step frees."""

import subprocess
import sys

import pytest

PAGES = """
import resource, sys, torch
from ptft.train.device import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    blocks = [torch.ones(2**20 * size) for size in (20, 1, 18, 2, 12)]
for _ in range(4):
    step()
before = faults()
for _ in range(4):
    step()
print(faults() - before)
"""


def page_faults(which: str) -> int:
    command = [sys.executable, "-c", PAGES, which]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_large_blocks_are_used_again() -> None:
    assert page_faults("keep") < page_faults("plain") / 5
