"""The benchmarks' smoke runs, for the test files that share them between two processes."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.warm import Warm

__all__ = ["check", "warmed"]


def warmed(folder: Path) -> Iterator[Warm]:
    """A process that has imported everything, to fork smoke runs from."""
    with Warm(folder) as warm:
        yield warm


def check(warm: Warm, name: str) -> None:
    """Run one; it is skipped where what it measures is not on this machine."""
    child = warm.module("tests.bench", name, "--smoke")
    code = child.wait()
    table, said = child.out.read_text(), child.err.read_text()[-3000:]
    assert code == 0, f"{table}\n{said}"
    *rows, last = table.splitlines()
    found = json.loads(last)
    assert rows, "no table"
    assert (found["bench"], found["smoke"], found["bars"], found["ok"]) == (name, True, {}, True)
    if not found["figures"]:
        assert f"{name} is skipped: {found['skipped']}" in rows
        pytest.skip(found["skipped"])
    for figure in found["figures"].values():
        assert figure if isinstance(figure, str) else math.isfinite(figure)
