"""A Hub that does not answer costs seconds, and what was asked for is told of."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from ptft import reach
from ptft.errors import ModelError
from ptft.model.tokenizers import build_tokenizer
from ptft.reach import hub_at_hand, why_unreachable
from tests.support.hub_parts import COMMAND
from tests.support.loopback_hub import LoopbackHub

RECIPE = """
name: mine
init: {from: models/mien}
data: {kind: scenes, size: 32}
optim: {samples_seen: 512}
"""


@pytest.fixture(params=["refuses", "is silent"])
def nowhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Hub that refuses connections, or takes them and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "is silent":
            listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def command(where: str, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that knows this Hub and no other; a minute is too much."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": where, "HF_HOME": str(place / "home")}
    return subprocess.run(
        [*COMMAND, *words], env=environment, cwd=place, capture_output=True, text=True, timeout=45
    )


def test_a_mistyped_path_is_told_of_as_a_path_first(nowhere: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    done = command(nowhere, tmp_path, "check", "mine.yaml")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    begin = f"ptft: models/mien: no such folder here; not in the cache; cannot reach {nowhere} ("
    assert line.startswith(begin)


def test_a_pull_is_told_of(nowhere: str, tmp_path: Path) -> None:
    done = command(nowhere, tmp_path, "pull", "org/model", "model")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ptft: org/model: cannot reach {nowhere} (")
    assert not (tmp_path / "model").exists()


def test_clients_are_offline_while_the_hub_is_absent_and_no_longer(nowhere: str) -> None:
    with hub_at_hand(nowhere) as absent:
        assert absent is not None
        assert constants.HF_HUB_OFFLINE
        assert why_unreachable(nowhere) == absent, "and not that somebody set HF_HUB_OFFLINE"
    assert not constants.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackHub(token="hf_test") as hub:
        for _ in range(3):
            with hub_at_hand(hub.url) as absent:
                assert absent is None
                assert not constants.HF_HUB_OFFLINE
        assert len(hub.requests) == 1
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert why_unreachable(hub.url) == "HF_HUB_OFFLINE is set"
        assert len(hub.requests) == 1


def test_a_hub_that_comes_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackHub(token="hf_test") as hub:
        monkeypatch.setitem(reach.answers, hub.url, (time.monotonic() - 61, "it was away"))
        assert why_unreachable(hub.url) is None


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, ptft.reach; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_tokenizer_of_the_hub_is_not_asked_for_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    text = {"hf_tokenizer_name": "nobody/nothing", "context_length": 64}
    with pytest.raises(ModelError, match=r"nobody/nothing: .*not in the cache; cannot reach http"):
        build_tokenizer({"text_cfg": text})
    assert not constants.HF_HUB_OFFLINE
