"""A run's mirror: whole copies, newest taken, failures told, and nothing lost with a machine."""

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import RunFiles
from ptft.errors import ArtifactError, MirrorError, RecipeError, UsageError
from ptft.runs.folder import read_run
from ptft.runs.mirror import Mirror
from ptft.runs.mirror.manifest import Manifest
from ptft.runs.mirror.newest import read_manifests
from ptft.runs.mirror.snapshot import position_of, take_snapshot
from ptft.runs.mirror.store import MirrorStore
from ptft.sequence import run_recipe
from ptft.train import train
from tests.support.faulty_store import FaultyStore
from tests.support.heard import Heard
from tests.support.killed import start, warm
from tests.support.mirrors import check_whole, made, manifests, stopped, whole
from tests.support.runs import BATCH, interrupt, largest_difference, recipe, run
from tests.support.warm import Warm, logged_steps

__all__ = ["made", "stopped", "warm", "whole"]  # fixtures


def test_a_stopped_run_goes_on_elsewhere(stopped: Path, whole: Path, tmp_path: Path) -> None:
    assert manifests(stopped)[0].position == (0, 0, 4)
    heard = Heard()
    elsewhere = tmp_path / "elsewhere"
    made = recipe(elsewhere, run__mirror=str(stopped))
    assert train(made, resume="auto", log=heard).finished
    assert f"{elsewhere}: goes on after step 4" in heard.lines
    assert f"{stopped}: mirrored to its end" in heard.lines
    assert largest_difference(whole, elsewhere) == 0.0
    assert list(logged_steps(elsewhere / RunFiles.LOG)) == list(range(1, 9))
    check_whole(stopped)
    assert len(manifests(stopped)) == 2, "run.keep"
    assert (stopped / "latest" / RunFiles.PAGE).is_file()

    shutil.rmtree(elsewhere)
    result = run(tmp_path / "third", resume="auto", run__mirror=str(stopped))
    assert result.finished
    assert largest_difference(whole, tmp_path / "third") == 0.0
    assert read_run(tmp_path / "third").status == "finished"
    assert run(tmp_path / "third", resume="auto", run__mirror=str(stopped)).finished
    assert not (tmp_path / "third.before-1").exists(), "it is here already"


def test_killed_at_any_moment_it_goes_on_from_an_empty_disk(
    warm: Warm, whole: Path, tmp_path: Path
) -> None:
    draw = random.Random(7)
    place, mirror = tmp_path / "place", tmp_path / "mirror"
    given = {"run__mirror": str(mirror), "run__checkpoint_every": 1, "run__page": False}
    for number in range(4):
        folder = place / str(number) / "run"
        folder.parent.mkdir(parents=True)
        child = start(warm, folder, "--resume", "auto", **given)
        log = folder / RunFiles.LOG
        assert child.wait_until(lambda log=log: logged_steps(log)), child.err.read_text()  # type: ignore[misc]
        time.sleep(draw.uniform(0.0, 0.15))
        child.kill()
        assert child.wait() in (-signal.SIGKILL, 0)
    last = place / "last" / "run"
    last.parent.mkdir()
    child = start(warm, last, "--resume", "auto", **given)
    assert child.wait() == 0, child.err.read_text()
    assert largest_difference(whole, last) == 0.0
    check_whole(mirror)


def test_a_damaged_copy_is_passed_over(stopped: Path, whole: Path, tmp_path: Path) -> None:
    newest, before = manifests(stopped)
    mine = newest.objects - before.objects
    name = next(n for n, entry in newest.files.items() if entry["sha256"] in mine and "state" in n)
    damaged = stopped / "objects" / newest.files[name]["sha256"]
    damaged.write_bytes(b"?" * damaged.stat().st_size)  # so that its size tells nothing
    heard = Heard()
    made = recipe(tmp_path / "next", run__mirror=str(stopped), run__checkpoint_every=2)
    assert train(made, resume="auto", log=heard).finished
    assert any("going on from the copy before" in line for line in heard.lines)
    assert f"{tmp_path / 'next'}: goes on after step {before.position[2]}" in heard.lines
    assert largest_difference(whole, tmp_path / "next") == 0.0
    check_whole(stopped)


def test_where_no_copy_is_whole_nothing_is_begun(stopped: Path, tmp_path: Path) -> None:
    for path in (stopped / "objects").iterdir():
        path.write_bytes(b"")
    with pytest.raises(MirrorError, match="none of 2 copies is whole"):
        run(tmp_path / "next", resume="auto", run__mirror=str(stopped))
    assert not (tmp_path / "next").exists()


WRONG: dict[str, tuple[str, Any]] = {
    "is no plain file name": ("name", ["../out.txt", "/etc/x", "a/../../x", ".lock", "a\\b"]),
    "64 hexadecimal digits": ("sha256", ["../../secret", "A" * 64, None, 7]),
    "a whole number from 0": ("size", [-1, 1.5, "1", 2**60]),
    "a whole number from 1": ("number", [0, "1", True]),
    "allowed: 1": ("format", [2, None]),
    "three whole numbers": ("position", [[1, 2], 3]),
}


@pytest.mark.parametrize("expected", WRONG)
def test_a_strangers_manifest_is_held_to_bounds(stopped: Path, expected: str) -> None:
    key, values = WRONG[expected]
    path = sorted((stopped / "manifests").iterdir())[-1]
    for value in values:
        changed = json.loads(path.read_text())
        entry = changed["files"]["run.json"]
        if key == "name":
            changed["files"][value] = changed["files"].pop("run.json")
        else:
            (entry if key in entry else changed)[key] = value
        with pytest.raises(ArtifactError, match=expected):
            Manifest.parse(json.dumps(changed).encode(), "there")
    path.write_text("{")
    told: list[str] = []
    assert len(read_manifests(MirrorStore(str(stopped)), told.append)) == 1
    assert "not JSON" in told[0]


def test_more_than_the_disk_holds_is_refused(stopped: Path, tmp_path: Path) -> None:
    for path in (stopped / "manifests").iterdir():
        values = json.loads(path.read_text())
        values["files"]["metrics.jsonl"]["size"] = 2**43
        path.write_text(json.dumps(values))
    with pytest.raises(UsageError, match="no room for the 8,79"):
        run(tmp_path / "next", resume="auto", run__mirror=str(stopped))


def test_a_mirror_is_of_one_run(stopped: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a run is mirrored there already"):
        run(tmp_path / "next", run__mirror=str(stopped))
    with pytest.raises(UsageError) as refusal:
        run(tmp_path / "next", resume="auto", run__mirror=str(stopped), optim__lr=0.5)
    assert "optim.lr is 0.001 there and 0.5 here" in str(refusal.value)
    assert not (tmp_path / "next").exists()
    made = recipe(tmp_path / "next", run__mirror=str(stopped), optim__lr=0.5)
    assert train(made, resume="auto", accept_changes=True, log=Heard()).finished
    assert read_run(tmp_path / "next").accepted[0]["step"] == 4


def test_an_older_state_here_is_put_aside(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mirror = tmp_path / "run", tmp_path / "mirror"
    given = {"run__mirror": str(mirror), "run__checkpoint_every": 1, "run__page": False}
    interrupt(monkeypatch, folder, 2, **given)
    shutil.copytree(folder, tmp_path / "old")
    interrupt(monkeypatch, folder, 3, resume="auto", **given)
    shutil.rmtree(folder)
    (tmp_path / "old").rename(folder)
    heard = Heard()
    assert train(recipe(folder, **given), resume="auto", log=heard).finished
    assert any(line.endswith(f"what was here is in {folder}.before-1") for line in heard.lines)
    assert f"{folder}: goes on after step 5" in heard.lines
    assert position_of(tmp_path / "run.before-1") == (0, 0, 2)
    assert largest_difference(whole, folder) == 0.0


def test_failures_are_tried_again_and_said_without_keys(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FaultyStore.begin()
    draw = random.Random(3)
    FaultyStore.fails = staticmethod(  # type: ignore[method-assign]
        lambda operation, path: "claim" not in path and draw.random() < 0.05
    )
    heard = Heard()
    made = recipe(tmp_path / "run", run__mirror="faulty://bucket/x", run__checkpoint_every=2)
    assert train(made, log=heard).finished
    told = [line for line in heard.lines if "503 Slow Down" in line]
    assert told and "again in" in told[0]
    assert "secret" not in "".join(heard.lines)
    assert "abcdef" not in "".join(heard.lines)
    FaultyStore.fails = staticmethod(lambda operation, path: False)  # type: ignore[method-assign]
    assert run(tmp_path / "next", resume="auto", run__mirror="faulty://bucket/x").finished
    assert largest_difference(whole, tmp_path / "next") == 0.0


def test_what_cannot_be_deleted_waits_and_spoils_nothing(whole: Path, tmp_path: Path) -> None:
    FaultyStore.begin()
    FaultyStore.fails = staticmethod(  # type: ignore[method-assign]
        lambda operation, path: operation == "delete" or "latest" in path
    )
    heard = Heard()
    changes = {"run__mirror": "faulty://bucket/x", "run__checkpoint_every": 2}
    assert train(recipe(tmp_path / "run", **changes), log=heard).finished
    assert any("the copy is whole, the rest waits" in line for line in heard.lines)
    found = read_manifests(MirrorStore("faulty://bucket/x"))
    assert len(found) > 2
    assert all(RunFiles.RUN in manifest.files for manifest in found)
    FaultyStore.fails = staticmethod(lambda operation, path: False)  # type: ignore[method-assign]
    shutil.rmtree(tmp_path / "run")
    assert run(tmp_path / "run", resume="auto", **changes).finished
    assert largest_difference(whole, tmp_path / "run") == 0.0


def test_a_mirror_that_stays_behind_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    FaultyStore.begin()
    FaultyStore.fails = staticmethod(  # type: ignore[method-assign]
        lambda operation, path: operation == "write" and "objects" in path
    )
    changes: dict[str, Any] = {
        "run__mirror": "faulty://bucket/x",
        "run__mirror_max_age_minutes": 1e-4,
        "run__mirror_grace_seconds": 0.0,
        "run__checkpoint_every": 1,
    }
    with pytest.raises(MirrorError, match=r"nothing is mirrored yet; .*503 Slow Down"):
        run(tmp_path / "run", **changes)
    record = read_run(tmp_path / "run")
    assert record.status == "stopped" and 0 < record.step < 8
    FaultyStore.begin()
    changes["run__mirror_max_age_minutes"] = 60.0
    assert run(tmp_path / "run", resume="auto", **changes).finished, "nothing was lost"


def test_a_finished_run_that_is_not_mirrored_is_an_error(tmp_path: Path) -> None:
    FaultyStore.begin()
    FaultyStore.fails = staticmethod(  # type: ignore[method-assign]
        lambda operation, path: "manifests/" in path
    )
    changes = {"run__mirror": "faulty://b/x", "optim__samples_seen": BATCH}
    short = {**changes, "run__mirror_max_age_minutes": 0.01}
    with pytest.raises(MirrorError, match="finished, but not in its mirror"):
        run(tmp_path / "run", **short)
    assert read_run(tmp_path / "run").status == "finished"
    FaultyStore.fails = staticmethod(lambda operation, path: False)  # type: ignore[method-assign]
    heard = Heard()
    assert train(recipe(tmp_path / "run", **changes), resume="auto", log=heard).finished
    assert heard.lines[-1] == "faulty://b/x: mirrored to its end"


def test_a_store_that_does_not_answer_at_the_start_is_told_at_once(tmp_path: Path) -> None:
    FaultyStore.begin()
    FaultyStore.fails = staticmethod(  # type: ignore[method-assign]
        lambda operation, path: operation == "write"
    )
    with pytest.raises(MirrorError, match="503 Slow Down"):
        run(tmp_path / "run", run__mirror="faulty://bucket/x")


def test_of_two_writers_the_later_goes_on(stopped: Path, tmp_path: Path) -> None:
    section = recipe(tmp_path / "run", run__mirror=str(stopped)).run
    folder = tmp_path / "next"
    assert run(folder, resume="auto", run__mirror=str(stopped)).finished
    earlier, later = (Mirror(section, folder, Heard()) for _ in range(2))
    earlier.offer()
    deadline = time.monotonic() + 30
    while (told := earlier.trouble()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "another process mirrors a run there by now" in told
    assert later.trouble() is None
    earlier.close()
    later.close()
    check_whole(stopped)


def test_what_is_taken_of_a_run(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "link.txt").symlink_to(folder / RunFiles.RUN)
    (folder / "two\nlines").write_text("a name that not every system takes")
    (folder / "wandb").mkdir()
    (folder / "wandb" / "log").write_text("the tracker's own")
    snapshot = take_snapshot(folder)
    (held,) = [held for held in snapshot.files if held.name == RunFiles.LOG]
    before = (folder / RunFiles.LOG).read_bytes()
    with (folder / RunFiles.LOG).open("a") as log:
        log.write("later\n")
    (folder / RunFiles.LOG).unlink()
    assert b"".join(held.pieces()) == before
    names = {held.name for held in snapshot.files}
    assert sorted(snapshot.left_out) == ["link.txt", "two\nlines"]
    assert "final/model.safetensors" in names
    assert not any(name.startswith((".", "wandb", "checkpoints")) for name in names), (
        "a finished run needs no checkpoint"
    )
    snapshot.close()


def test_a_run_that_cannot_be_taken_goes_on_and_says_so(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    heard = Heard()
    section = recipe(folder, run__mirror=str(tmp_path / "mirror")).run
    mirror = Mirror(section, folder, heard)
    (folder / "PAGE.html").write_text("two names that some systems take for one")
    mirror.offer()
    assert "differ in letter case alone" in heard.lines[-1]
    assert manifests(tmp_path / "mirror") == []
    (folder / "PAGE.html").unlink()
    mirror.finish()
    assert manifests(tmp_path / "mirror")[0].position == (1, 0, 0)
    mirror.close()


def test_places_that_are_no_mirror(tmp_path: Path) -> None:
    for address in ("https://host/x", "filecache::s3://b/x", "", "ftp://h/x"):
        with pytest.raises(RecipeError, match=r"run\.mirror.*nothing is written there"):
            recipe(tmp_path / "run", run__mirror=address)
    with pytest.raises(MirrorError, match="within the run folder"):
        run(tmp_path / "run", run__mirror=str(tmp_path / "run" / "mirror"))
    with pytest.raises(MirrorError, match="nosuch"):
        run(tmp_path / "next", run__mirror="nosuch://bucket/x")


def test_a_sequence_is_mirrored_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = {"kind": "scenes", "size": 32, "train": 80, "val": 16, "test": 16}
    stages = [{"name": style, "data": {**scenes, "style": style}} for style in ("line", "shaded")]
    given: dict[str, Any] = {
        "data": None,
        "stages": stages,
        "guard": None,
        "optim__samples_seen": 2 * BATCH,
        "run__checkpoint_every": 1,
        "run__neighbours": False,
        "run__page": False,
    }
    assert run_recipe(recipe(tmp_path / "whole", **given), log=Heard()).finished
    mirror = tmp_path / "mirror"
    given["run__mirror"] = str(mirror)
    interrupt(monkeypatch, tmp_path / "cut", 3, **given)
    assert manifests(mirror)[0].position == (0, 1, 1)
    shutil.rmtree(tmp_path / "cut")
    heard = Heard()
    made = recipe(tmp_path / "next", **given)
    assert run_recipe(made, resume="auto", log=heard).finished
    assert f"{tmp_path / 'next' / '2-shaded'}: goes on after step 1" in heard.lines
    assert largest_difference(tmp_path / "whole", tmp_path / "next") == 0.0
    assert manifests(mirror)[0].position == (1, 0, 0)
    check_whole(mirror)
