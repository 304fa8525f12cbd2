"""Claims of jobs, by several processes in one folder or at one address."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptft.compare.claims import Claims
from ptft.compare.processes import Processes
from ptft.errors import MirrorError, TrainingError
from ptft.runs.mirror.store import MirrorStore
from ptft.speech import SILENT
from tests.support.heard import Heard

ELSEWHERE = {"pid": 1, "boot": "another machine", "space": "pid:[1]", "started": "1"}


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MirrorStore]:
    yield MirrorStore(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}")


def claims(store: MirrorStore, lease: float = 60.0, *, elsewhere: bool = False) -> Claims:
    return Claims(store, lease=lease, log=SILENT, process=ELSEWHERE if elsewhere else None)


def test_of_many_that_claim_a_job_at_once_one_has_it(store: MirrorStore) -> None:
    many = [claims(store) for _ in range(8)]
    taken: list[str] = []

    def take(one: Claims) -> None:
        taken.extend(job for job in ("a_8", "b_8", "c+wise_8") if one.take(job, {}))

    threads = [threading.Thread(target=take, args=(one,)) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == ["a_8", "b_8", "c+wise_8"]
    assert many[0].newest() == {"a_8": 1, "b_8": 1, "c+wise_8": 1}


def test_a_job_of_one_that_lives_is_not_taken_and_of_one_that_ended_it_is(
    store: MirrorStore,
) -> None:
    with claims(store, elsewhere=True) as second:
        with claims(store, elsewhere=True) as first:
            assert first.take("a_8", first.newest())
            assert not second.take("a_8", second.newest())
            assert second.lost(second.newest()) == set()
        assert second.take("a_8", second.newest())
        assert first.lost(second.newest()) == {"a_8"}


def test_one_that_is_silent_for_its_own_lease_is_dead(store: MirrorStore) -> None:
    """By the clock of who looks; what the lease of that one is does not matter."""
    first, second = claims(store, 4.0, elsewhere=True), claims(store, 3600.0)
    first.beat()  # and never again
    assert first.take("a_8", {})
    assert not second.take("a_8", second.newest())
    time.sleep(2.1)
    first.beat()
    time.sleep(2.1)
    assert not second.take("a_8", second.newest()), "it was heard of meanwhile"
    time.sleep(4.1)
    assert second.take("a_8", second.newest())


def test_a_process_that_was_killed_on_this_machine_is_dead_at_once(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from ptft.compare.claims import Claims\n"
        "from ptft.runs.mirror.store import MirrorStore\n"
        "from ptft.speech import SILENT\n"
        "with Claims(MirrorStore(sys.argv[1]), lease=3600.0, log=SILENT) as own:\n"
        "    assert own.take('a_8', {})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -9
    own = claims(MirrorStore(str(tmp_path)))
    assert own.living(["a_8"]) is None
    assert own.take("a_8", own.newest())


def test_who_works_there_is_found(store: MirrorStore) -> None:
    own = claims(store)
    with claims(store, 3.0) as here:
        assert here.take("a_8", {})
        found = own.living(["a_8"])
        assert found is not None and found.worker == here.worker
        assert own.living(["b_8"]) is None
    assert own.living(["a_8"]) is None
    waiting = Claims(store, lease=60.0, log=(log := Heard()))
    with claims(store, 1.0, elsewhere=True) as far:
        assert far.take("c_8", {})
        found = waiting.living(["c_8"])
        assert found is not None and found.worker == far.worker
    assert any("still works at this comparison" in line for line in log.lines)


def test_a_claim_that_is_none_is_held_until_a_lease_is_over(store: MirrorStore) -> None:
    own = claims(store, 1.0)
    for text in (b"", b'{"worker": "../x"}', b"[1]", b'{"worker": 1, "lease": NaN}'):
        store.write("claims/a_8.1.json", [text])
        assert not own.take("a_8", own.newest())
    time.sleep(1.1)
    assert own.take("a_8", own.newest())


def test_a_store_that_writes_over_what_is_there_is_refused(
    store: MirrorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MirrorStore, "create", lambda *_: True)
    with pytest.raises(MirrorError, match="does not refuse to write a file that is there"):
        claims(store).__enter__()
    monkeypatch.undo()
    other = MirrorStore("hf://buckets/me/runs")
    with pytest.raises(MirrorError, match=r"allowed: a folder on a shared disk, s3://"):
        other.check_creates("claims/.x")


def test_a_lost_answer_does_not_lose_a_claim(store: MirrorStore) -> None:
    """The same bytes again are the same writer's, where a client sends a request twice."""
    assert store.create("claims/a_8.1.json", b"mine")
    if store.folder is None:
        assert store.create("claims/a_8.1.json", b"mine")
    assert not store.create("claims/a_8.1.json", b"another's")
    assert store.read("claims/a_8.1.json", most=100) == b"mine"


def fail(how: str) -> None:
    import os
    import signal

    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "odd":
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, how)
    if how == "silent":
        os._exit(3)
    if how == "waits":
        signal.pause()


def test_a_process_that_fails_is_told_of(tmp_path: Path) -> None:
    with Processes() as processes:
        for how in ("well", "killed", "odd", "silent", "waits"):
            processes.start(how, fail, how)
        found: dict[str, Exception | None] = {}
        while len(found) < 4:
            found |= processes.ended(5.0)
        assert processes.jobs == ["waits"]
    assert found["well"] is None
    assert isinstance(found["odd"], UnicodeDecodeError)
    assert isinstance(found["killed"], TrainingError)
    assert str(found["killed"]).startswith("killed: its process was killed by signal 9")
    assert str(found["silent"]).startswith("silent: its process ended with 3")
    assert len(processes) == 0


def test_what_a_claim_says_is_little_and_names_its_process(tmp_path: Path) -> None:
    own = claims(MirrorStore(str(tmp_path)))
    assert own.take("a_8", {})
    values = json.loads((tmp_path / "claims" / "a_8.1.json").read_text())
    assert set(values) == {"worker", "where", "process", "lease"}
    assert values["where"].startswith("process ")
