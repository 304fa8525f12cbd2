"""The other half of the benchmarks' smoke runs, for another process of the tests."""

from collections.abc import Iterator

import pytest

from tests.bench.__main__ import NAMES
from tests.support.smoke import check, warmed
from tests.support.warm import Warm


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    yield from warmed(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("name", NAMES[1::2])
def test_it_runs(warm: Warm, name: str) -> None:
    check(warm, name)
