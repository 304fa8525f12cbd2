"""A run folder that came from elsewhere: what is written into it stays in it."""

import json
import os
from pathlib import Path

import pytest

from ptft.artifact import RunFiles, write_atomic
from ptft.errors import ArtifactError, UsageError
from ptft.report.console import Report
from ptft.runs.folder import RunRecord, lock_run, note_test_read, read_run, write_run
from tests.support.runs import recipe, run

RECORD = RunRecord("a", "0", "stopped", "2026-01-01T00:00:00+00:00", {})


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.write_bytes(b"dear to me")
    return path


@pytest.mark.parametrize("name", [RunFiles.LOCK, RunFiles.LOG, RunFiles.RUN, RunFiles.BAD_BATCH])
def test_a_run_with_a_link_in_it_is_not_gone_on_with(name: str, tmp_path: Path, mine: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(mine)
    said = r"a link, which is not followed; .* \(cp -rL .*run.dir"
    with pytest.raises(UsageError, match=said), lock_run(folder):
        raise AssertionError("it is not held")
    assert mine.read_bytes() == b"dear to me"


@pytest.mark.parametrize("name", ["checkpoints", "final", "tensorboard", "wandb", "a/b"])
def test_nor_one_with_a_folder_elsewhere(name: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(UsageError, match=f"{name}: a link"), lock_run(folder):
        pass


def test_a_tracker_may_link_to_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "run/wandb/run-1").mkdir(parents=True)
    (tmp_path / "run/wandb/latest-run").symlink_to("run-1")
    with lock_run(tmp_path / "run"):
        assert (tmp_path / "run" / RunFiles.LOCK).is_file()
    assert (tmp_path / "run/wandb/latest-run").is_symlink()


def test_a_pipe_and_a_hard_link_are_no_lock(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / RunFiles.LOCK)
    with pytest.raises(UsageError, match="not a plain file"), lock_run(tmp_path / "piped"):
        pass
    (tmp_path / "hard").mkdir()
    os.link(mine, tmp_path / "hard" / RunFiles.LOCK)
    with pytest.raises(UsageError, match="a hard link"), lock_run(tmp_path / "hard"):
        pass
    assert mine.read_bytes() == b"dear to me"


def test_a_run_of_another_user_is_adopted_by_a_copy(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    os.chown(folder / "run.json", 12345, 12345)
    said = r"run\.json: it belongs to another user \(number 12345\)"
    with pytest.raises(UsageError, match=said), lock_run(folder):
        pass
    os.chown(folder / "run.json", 0, 0)
    (folder / "final").mkdir()  # where they may put a link in the next moment
    os.chown(folder / "final", 12345, 12345)
    with pytest.raises(UsageError, match=r"final: it belongs to another user"), lock_run(folder):
        pass
    os.chown(folder / "final", 0, 0)
    os.chown(folder, 12345, 12345)
    with pytest.raises(UsageError, match=r"run: it belongs to another user"), lock_run(folder):
        pass


def test_resuming_a_run_writes_through_no_link(tmp_path: Path, mine: Path) -> None:
    folder = tmp_path / "run"
    assert run(folder).finished
    record = json.loads((folder / RunFiles.RUN).read_text())
    (folder / RunFiles.RUN).write_text(json.dumps({**record, "status": "stopped"}))
    (folder / RunFiles.LOG).unlink()
    (folder / RunFiles.LOG).symlink_to(mine)
    with pytest.raises(UsageError, match=r"metrics\.jsonl: a link"):
        run(folder, resume=True)
    assert mine.read_bytes() == b"dear to me"


def test_a_log_is_appended_to_and_no_link_followed(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "log").symlink_to(mine)
    with pytest.raises(OSError, match="a link"):
        Report._append(tmp_path / "log", {"a": 1})
    Report._append(tmp_path / "plain", {"a": 1})
    Report._append(tmp_path / "plain", {"a": 2})
    assert (tmp_path / "plain").read_text() == '{"a": 1}\n{"a": 2}\n'
    assert mine.read_bytes() == b"dear to me"


def test_a_file_that_is_replaced_follows_no_link(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "a").symlink_to(mine)
    (tmp_path / f".a.{os.getpid()}.partial").symlink_to(mine)
    write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new" and not (tmp_path / "a").is_symlink()
    assert mine.read_bytes() == b"dear to me"


def test_test_reads_are_noted_in_ones_own_run_alone(tmp_path: Path, mine: Path) -> None:
    items = recipe(tmp_path, evaluate=[{"kind": "retrieval", "split": "test"}]).evaluate
    write_run(tmp_path, RECORD)
    note_test_read(tmp_path, read_run(tmp_path), items, by="evaluate")
    assert len(read_run(tmp_path).test_reads) == 1
    (tmp_path / RunFiles.RUN).rename(tmp_path / "elsewhere.json")
    (tmp_path / RunFiles.RUN).symlink_to(tmp_path / "elsewhere.json")
    note_test_read(tmp_path, read_run(tmp_path), items, by="evaluate")
    assert (tmp_path / RunFiles.RUN).is_symlink() and len(read_run(tmp_path).test_reads) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"notes": 3}, "notes: "),
        ({"step": "x"}, "step: "),
        ({"test_reads": ["x"]}, "test_reads.0: "),
        ({"versions": {"a": []}}, "versions.a: "),
        ({"odd": 1}, "odd"),
    ],
)
def test_a_record_of_other_types_is_told_in_one_line(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    write_run(tmp_path, RECORD)
    values = json.loads((tmp_path / RunFiles.RUN).read_text())
    (tmp_path / RunFiles.RUN).write_text(json.dumps({**values, **changes}))
    with pytest.raises(ArtifactError) as caught:
        read_run(tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)
