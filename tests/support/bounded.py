"""A test in which what is not refused fails, and the machine goes on."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["room"]

_ROOM = 3 << 30


@pytest.fixture(autouse=True)
def room() -> Iterator[None]:
    """Addresses for 3 GiB more, so that what is not refused fails and the machine goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
