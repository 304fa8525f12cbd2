"""Which folder a run of a recipe begins in, or goes on in."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from ptft.artifact import RunFiles
from ptft.distributed import World
from ptft.errors import UsageError
from ptft.recipe import Recipe, load_foreign
from ptft.runs.changes import recipe_changes
from ptft.runs.folder import RunRecord, RunStatus, read_run
from ptft.runs.mirror import bring_back

__all__ = ["Resume", "open_run", "open_together"]

Resume = bool | Literal["auto"]
"""False: begin; True: go on with a run; ``"auto"``: go on, or begin where there is no run."""

_SHOWN = 5  # changed keys that are told at once
_UNBEGUN = (RunFiles.LOCK, RunFiles.RECIPE)  # what a run leaves that is killed as it begins


def open_run(
    recipe: Recipe, *, resume: Resume, accept: bool = False
) -> tuple[Path, RunRecord | None]:
    """The folder for a run of this recipe, and its record if it goes on with one.

    Args:
        resume: go on with the newest run of the same recipe (or the one at ``run.dir``);
            ``"auto"``: or begin, where there is none of any recipe.
        accept: go on with the newest one although its recipe is another.

    Raises:
        UsageError: the folder is taken, or holds a run of another recipe, or there is none to
            go on with.
    """
    if not resume:
        folder = _new_folder(recipe)
        if recipe.run.dir and _is_taken(folder):
            raise UsageError(
                f"run.dir: {str(folder)!r}: something is there already; --resume goes on with a "
                "run, run.dir=... starts another one elsewhere"
            )
        return folder, None
    candidates = [Path(recipe.run.dir)] if recipe.run.dir else _numbered(recipe.name)
    begun = [folder for folder in candidates if (folder / RunFiles.RUN).is_file()]
    found, problems = _same_run(recipe, begun)
    if found is None and accept and begun:
        found = _changed_run(recipe, begun[0])
    if found is not None:
        return found, read_run(found)
    if resume == "auto" and not begun:
        return _where_nothing_is(recipe), None
    problems += [f"{folder}: no run is there" for folder in candidates if folder not in begun]
    what = "--resume auto" if resume == "auto" else "--resume"
    allowed = []
    if begun:
        allowed = ["  allowed: the recipe as it was, --accept-changes, or run.dir=... elsewhere"]
    raise UsageError(
        f"{what}: no run to go on with", *(f"  {problem}" for problem in problems), *allowed
    )


def open_together(
    recipe: Recipe,
    world: World,
    *,
    resume: Resume,
    accept: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> tuple[Path, RunRecord | None]:
    """As :func:`open_run`, by the first rank for all; a run that its mirror has, and the disk here
    not, is brought back first.

    Processes that torchrun started again go on with the run that they were in, or start one if it
    had not come to that.

    Raises:
        UsageError: as :func:`open_run`, on the first rank.
        TrainingError: then on the others.
    """

    def first() -> tuple[Path, RunRecord | None]:
        placed = _placed(recipe)
        if placed.run.mirror is not None:
            going_on = bool(resume or world.restarts)
            bring_back(placed, _new_folder(placed), resume=going_on, accept=accept, say=say)
        if world.restarts:
            return _go_on(placed, accept)
        return open_run(placed, resume=resume, accept=accept)

    return world.on_first(first)


def _placed(recipe: Recipe) -> Recipe:
    """The recipe with a folder of its own, where it has a mirror: that is of one run alone."""
    if recipe.run.mirror is None or recipe.run.dir is not None:
        return recipe
    section = recipe.run.model_copy(update={"dir": str(Path("runs") / recipe.name)})
    return recipe.model_copy(update={"run": section})


def _go_on(recipe: Recipe, accept: bool) -> tuple[Path, RunRecord | None]:
    if recipe.run.dir:
        return open_run(recipe, resume="auto", accept=accept)
    try:
        folder, record = open_run(recipe, resume=True, accept=accept)
    except UsageError:
        return open_run(recipe, resume=False)
    if record is not None and record.status == RunStatus.FINISHED:
        return open_run(recipe, resume=False)  # an earlier run; a finished one is not started again
    return folder, record


def _same_run(recipe: Recipe, folders: Sequence[Path]) -> tuple[Path | None, list[str]]:
    """The first of the folders that holds a run of this recipe, one whose data lie elsewhere if
    there is no other; and why the others are not that."""
    problems, elsewhere = [], []
    for folder in folders:
        recorded = load_foreign(folder / RunFiles.RECIPE)
        changes = recipe_changes(recipe, recorded)
        if not changes:
            return folder, []
        if (folder / RunFiles.DATA).is_file():
            # what the data hold is recorded, so it does not matter where they lie
            changes = recipe_changes(recipe, recorded, places=False)
            if not changes:
                elsewhere.append(folder)
                continue
        more = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        told = "; ".join(changes[:_SHOWN])
        problems.append(f"{folder}: a run of another recipe: {told}{more}")
    return (elsewhere[0] if elsewhere else None), problems


def _changed_run(recipe: Recipe, folder: Path) -> Path:
    """The folder of a run of another recipe that is to be gone on with."""
    if read_run(folder).status == RunStatus.FINISHED:
        changes = recipe_changes(recipe, load_foreign(folder / RunFiles.RECIPE))
        raise UsageError(
            f"--accept-changes: {folder}: finished with its recipe as it was: {changes[0]}; "
            f"allowed: init.from={folder} with another run.dir, which goes on from its model"
        )
    return folder


def _new_folder(recipe: Recipe) -> Path:
    return Path(recipe.run.dir) if recipe.run.dir else _free_folder(recipe.name)


def _where_nothing_is(recipe: Recipe) -> Path:
    """The folder for a run that begins, cleared of one that was killed before it had begun."""
    folder = _new_folder(recipe)
    if not _is_taken(folder, but=_UNBEGUN):
        (folder / RunFiles.RECIPE).unlink(missing_ok=True)
        return folder
    raise UsageError(
        f"run.dir: {str(folder)!r}: something is there that is no run; allowed: a folder that is "
        "empty or not there yet, or one with a run"
    )


def _is_taken(folder: Path, but: Sequence[str] = (RunFiles.LOCK,)) -> bool:
    """Whether anything lies there but the lock of a run that never began."""
    if not folder.exists():
        return False
    names = (path.name for path in folder.iterdir())
    return any(name not in but and not name.endswith(".partial") for name in names)


def _free_folder(name: str) -> Path:
    taken = _numbered(name)
    base = Path("runs") / name
    if not taken and not base.exists():
        return base
    return base.with_name(f"{name}-{_number(taken[0], name) + 1 if taken else 2}")


def _numbered(name: str) -> list[Path]:
    """``runs/name``, ``runs/name-2``, ...: those that exist, newest first."""
    pattern = re.compile(re.escape(name) + r"(-\d+)?")
    found = [path for path in Path("runs").glob(f"{name}*") if pattern.fullmatch(path.name)]
    return sorted(found, key=lambda path: _number(path, name), reverse=True)


def _number(path: Path, name: str) -> int:
    return int(path.name.removeprefix(name).removeprefix("-") or 1)
