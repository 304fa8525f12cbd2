"""Every benchmark runs, at a size of seconds; and those that documents name are there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.__main__ import NAMES, main
from tests.support.smoke import check, warmed
from tests.support.warm import Warm


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    yield from warmed(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("name", NAMES[::2])
def test_it_runs(warm: Warm, name: str) -> None:
    """The others: ``test_bench_other_half.py``."""
    check(warm, name)


def test_all_are_listed_with_what_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == NAMES
    assert all(len(about) > 20 for about in lines.values())


def test_one_that_is_none_is_an_error_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["servign"])
    assert ended.value.code == 2
    assert "serving" in capsys.readouterr().err


def test_those_that_documents_name_are_there(repo: Path) -> None:
    texts = [*repo.glob("*.md"), *repo.glob("docs/**/*.md"), *repo.glob("recipes/**/*.yaml")]
    named = {
        name
        for path in texts
        for name in re.findall(r"tests[./]bench[ /]([a-z]\w+)", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert named <= set(NAMES)
