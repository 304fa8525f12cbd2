"""What lies under a name: one answer for each kind, and what a refusal says."""

from pathlib import Path

import pytest

from ptft.artifact import FolderFiles, RunFiles
from ptft.errors import ModelError, UsageError
from ptft.model_source import (
    Checkpoint,
    HubRevision,
    Mix,
    ModelFolder,
    OpenClipFolder,
    Run,
    finished_run,
    model_folder,
    recipe_file,
    resolve,
    run_folder,
)

STEP = f"{RunFiles.CHECKPOINTS}/step-00000100"


def folder(path: Path, *names: str) -> Path:
    """A folder with these files, empty: what it is, their names alone tell."""
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    spec = RunFiles.SPEC
    inside = (f"{STEP}/{spec}", f"{RunFiles.CHECKPOINTS}/step-00000090/{spec}")
    return folder(tmp_path / "mine", RunFiles.RUN, RunFiles.RECIPE, *inside)


def test_a_run_and_what_lies_in_it(run: Path) -> None:
    assert resolve(run) == Run(run, run / STEP, "mine")
    step = resolve(run / STEP)
    assert step == Checkpoint(run / STEP, run, "step-00000100")
    final = folder(run / RunFiles.FINAL, RunFiles.SPEC)
    assert resolve(str(run)) == Run(run, final, "mine")
    assert resolve(final) == Checkpoint(final, run, "final")
    assert [finished_run(resolve(place)) for place in (run, final, run / STEP)] == [run, run, None]
    assert {recipe_file(resolve(place)) for place in (run, final, run / STEP)} == {
        run / RunFiles.RECIPE
    }
    mixed = folder(run / "mixed", RunFiles.SPEC)  # of a stage
    assert run_folder(resolve(mixed)) == run and finished_run(resolve(mixed)) is None


def test_what_lies_in_a_run_and_is_not_its_own(run: Path) -> None:
    exported = folder(run / "model", FolderFiles.INFO, RunFiles.SPEC, RunFiles.WEIGHTS)
    assert resolve(exported) == ModelFolder(exported, "model")
    soup = folder(run / "soup", RunFiles.MIX, RunFiles.SPEC)
    assert resolve(soup) == Mix(soup, "soup")
    assert run_folder(resolve(exported)) is run_folder(resolve(soup)) is None


def test_what_came_from_elsewhere(tmp_path: Path, run: Path) -> None:
    theirs = folder(tmp_path / "theirs", FolderFiles.OPEN_CLIP_CONFIG)
    assert resolve(theirs) == OpenClipFolder(theirs, "theirs")
    alone = folder(tmp_path / "elsewhere" / "weights", RunFiles.SPEC)
    assert resolve(alone) == Checkpoint(alone, None, "weights")
    (run / RunFiles.RUN).unlink()  # a copy of its checkpoints
    assert resolve(run) == Checkpoint(run / STEP, None, "mine")
    assert resolve("org/repo@v1") == HubRevision("org/repo@v1")
    assert recipe_file(resolve("org/repo")) is None


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    begun = resolve(folder(tmp_path / "new", RunFiles.RUN))
    assert begun == Run(tmp_path / "new", None, "new")
    with pytest.raises(ModelError, match="new: a run that has saved no checkpoint yet"):
        model_folder(begun)  # type: ignore[arg-type]


def test_a_refusal_says_what_was_looked_for_and_what_is_near(run: Path) -> None:
    near = run.with_name("mien")
    with pytest.raises(
        ModelError, match=rf"no such folder; did you mean '{run}'\?; allowed: a run"
    ):
        resolve(near)
    (run.parent / "none").mkdir()
    with pytest.raises(UsageError, match=r"none: holds no model; looked for ptft\.json, model\.js"):
        resolve(run.parent / "none", error=UsageError)
    with pytest.raises(UsageError, match="other: no such folder; allowed: tea"):
        resolve(run.parent / "other", error=UsageError, allowed="tea")
