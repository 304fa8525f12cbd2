"""CPU-seconds of each test, what it started included, as a pytest plugin.

``python -m pytest -p tests.support.costs --costs FILE -n 2 --dist loadfile`` appends a line a
test to FILE as it ends, so that a run that is cut short tells as well; then
``python -m tests.support.costs FILE`` prints the files of tests and the tests that cost most.
CPU-seconds and not wall: a busy machine makes tests wait, and the ranks stay.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", metavar="FILE", help="append each test's CPU-seconds to FILE")


def spent() -> float:
    """CPU-seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Set-up and tear-down of what it is the first or last to use count as its own."""
    before = spent()
    done = yield
    if path := item.config.getoption("--costs"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{spent() - before:.2f}\t{item.nodeid}\n")
    return done


def main(path: str, most: int = 40) -> None:
    files: defaultdict[str, float] = defaultdict(float)
    tests: defaultdict[str, float] = defaultdict(float)
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        seconds, name = line.split("\t", 1)
        files[name.partition("::")[0]] += float(seconds)
        tests[name.partition("[")[0]] += float(seconds)
    lines = [f"{sum(files.values()) / 60:.1f} CPU-minutes"]
    for costs in (files, tests):
        ranked = sorted(costs.items(), key=lambda item: -item[1])[:most]
        lines += ["", *(f"{cost:8.1f}  {name}" for name, cost in ranked)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
