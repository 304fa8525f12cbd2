"""Runs what is left of a comparison, alone or as one of several workers, and writes its report."""

import json
import logging
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles
from ptft.compare.arms import START, first_recipe, search_space
from ptft.compare.board import Board, clear_bare
from ptft.compare.candidates import candidates_told, expected_told
from ptft.compare.claims import Claims
from ptft.compare.keys import Keys, base_values
from ptft.compare.margins import margins_told
from ptft.compare.passes import cut_short
from ptft.compare.recorded_data import check_recorded_data
from ptft.compare.results import Cell, Cells
from ptft.compare.selected import kept_sets, luck_told, selection_luck
from ptft.compare.target import Target
from ptft.compare.unlabelled import check_unlabelled
from ptft.compare.unlearned import check_unlearned, unlearned_told
from ptft.compare.work import ArmJob, Shared, work
from ptft.errors import ArtifactError, PtftError, RecipeError, UsageError
from ptft.files.atomic import create_atomic, write_atomic
from ptft.files.bounds import parse_json
from ptft.recipe import Comparison
from ptft.recipe.load import dump_recipe, load_comparison
from ptft.runs.changes import recipe_changes
from ptft.runs.folder import check_own_run
from ptft.speech import LOG, say
from ptft.train.part import Reason, Stop

__all__ = ["LEASE", "ComparisonOutcome", "check_comparison", "compare"]

LEASE = 60.0
"""Seconds without a sign of a worker after which others take its jobs over."""
_LEAST_LEASE, _MOST_LEASE = 1.0, 86_400.0
_GO_ON = 75  # as of ptft.train
_ESTIMATES = "estimates.json"
_MOST = 1 << 24  # bytes of a recipe or of estimates


@dataclass(frozen=True)
class ComparisonOutcome:
    """What a comparison left behind.

    Attributes:
        folder: of the comparison, with the report.
        cells: all that are finished.
        left: cells that time did not suffice for.
        reason: why it stopped, where a signal did that.
    """

    folder: Path
    cells: list[Cell]
    left: int
    reason: Reason | None = None

    @property
    def exit_code(self) -> int:
        """0 when all cells are finished; 75 when out of time, or warned of that by SIGUSR1 or
        SIGUSR2; 128 + the signal's number at SIGTERM (143) and Ctrl-C (130). As of a training,
        whoever starts comparisons goes on at 75 and 143."""
        if not self.left:
            return 0
        reason = self.reason
        if reason is None or reason.late or reason.signal is None:
            return _GO_ON
        return 128 + reason.signal


def compare(
    comparison: Comparison,
    *,
    max_minutes: float | None = None,
    accept_changes: bool = False,
    worker: bool = False,
    lease: float = LEASE,
    log: logging.Logger = LOG,
) -> ComparisonOutcome:
    """Run every cell that is not finished, then write the report.

    A comparison that was stopped or killed goes on from its finished cells when it is run again.
    Of several workers that share its folder or its mirror, each claims an arm at a budget at a
    time; none of them ends before all cells are finished, so that the work of one that was killed
    is done by another.

    Args:
        max_minutes: start nothing after so many minutes; the report says what is left out.
        accept_changes: go on although the data are not those of the finished cells; the report
            says so.
        worker: share the work with other processes, on this machine or others.
        lease: seconds without a sign of this process after which others take its jobs over.
        log: of what it says on its way (:mod:`ptft.speech`).

    Raises:
        RecipeError, DataError: before any training: a budget larger than the data, a class
            without a picture, a retained set that shares pictures with the target, or with what the
            start learned from where that is said not to be; or the data changed since the
            comparison began.
        UsageError: the folder or the mirror holds another comparison; or another process works at
            it, and this is no worker.
        MirrorError: ``run.mirror`` does not answer, or cannot hold claims.
    """
    from ptft.compare.page import choose, write_report
    from ptft.compare.recommended import write_recommended

    if not _LEAST_LEASE <= lease <= _MOST_LEASE:
        raise UsageError(f"lease: {lease:g}: allowed: {_LEAST_LEASE:g} to {_MOST_LEASE:g} seconds")
    board = _open(comparison, log)
    cells = Cells(board.folder, comparison)
    board.bring_records()
    board.give_cells(path.stem for path in sorted(cells.folder.glob("[!.]*.json")))
    jobs = _unfinished(comparison, board)
    if unused := cells.unused:
        say(
            log,
            f"{cells.folder}: {unused} cells are of other arms, budgets, seeds or settings, or of "
            "a ptft before 0.2; they stay, and are not used here",
        )
    changes = check_recorded_data(comparison, board, cells, accept=accept_changes, log=log)
    target = _check(comparison)
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    cut = cut_short(comparison, target.samples)
    with Stop() as stop:
        if jobs:
            with Claims(board.store, lease=lease, log=log) as claims:
                if not worker:
                    _refuse_others(board, claims, jobs)
                jobs = _estimated(comparison, jobs, board, shared=worker, log=log)
                if cut:
                    say(log, cut)
                with stop.armed():
                    shared = Shared(board, claims, log)
                    work(comparison, jobs, shared, stop, deadline=deadline)
        left = len(_all_cells(comparison) - board.bring_cells())
        test = target.target.test
        remarks = [*changes, *filter(None, (cut, *_remarks(comparison, target)))]
        while True:
            found = cells.all()
            write_report(comparison, found, board.folder, left=left, remarks=remarks, test=test)
            if (choice := choose(comparison, found)).chosen:
                write_recommended(comparison, choice.arms, choice.chosen[-1], board.folder)
            board.give_report()
            now = len(_all_cells(comparison) - board.bring_cells())
            if now == left:  # else another worker finished some meanwhile, and told of them before
                break
            left = now
    if not left:
        shutil.rmtree(board.folder / "tasks", ignore_errors=True)
    return ComparisonOutcome(board.folder, found, left, stop.reason if left else None)


def _remarks(comparison: Comparison, target: Target) -> list[str | None]:
    """What to mind of how the answers are read."""
    pictures = {one.name: (len(one.val), len(one.test)) for one in target.retained}
    return [
        *target.said,
        target.questions_told,
        luck_told(selection_luck(comparison)),
        unlearned_told(comparison, target),
        candidates_told(kept_sets(comparison), pictures),
        expected_told(target.target.metric, len(target.target.test)) or margins_told(comparison),
    ]


def _jobs(comparison: Comparison) -> list[ArmJob]:
    section, keys = comparison.compare, Keys(comparison)
    return [
        ArmJob(arm, budget, keys.of(arm, budget))
        for budget in section.budgets
        for arm in section.arms
    ]


def _all_cells(comparison: Comparison) -> set[str]:
    seeds = comparison.compare.seeds
    return {cell for job in _jobs(comparison) for cell in job.cells(seeds)}


def _unfinished(comparison: Comparison, board: Board) -> list[ArmJob]:
    done, seeds = board.bring_cells(), comparison.compare.seeds
    return [job for job in _jobs(comparison) if not done.issuperset(job.cells(seeds))]


def _refuse_others(board: Board, claims: Claims, jobs: list[ArmJob]) -> None:
    """Refuse to go on beside a process that works at the same comparison."""
    other = board.patiently(lambda: claims.living({job.name for job in jobs}))
    if other is not None:
        raise UsageError(
            f"{board.store.url}: {other.where} works at this comparison; allowed: --worker, which "
            "shares the work with it, or another run.dir"
        )


def _estimated(
    comparison: Comparison, jobs: list[ArmJob], board: Board, *, shared: bool, log: logging.Logger
) -> list[ArmJob]:
    """The jobs with the seconds that each will take; workers take those of the first of them."""
    from ptft.compare.estimate import clock_minutes, estimate

    seconds = _known(board) if shared else {}
    if not all(job.name in seconds for job in jobs):
        found = estimate(comparison, [(job.arm, job.budget) for job in jobs])
        seconds = {job.name: each for job, each in zip(jobs, found, strict=True)}
        if shared:
            data = json.dumps(seconds).encode()
            board.patiently(lambda: board.store.create(_ESTIMATES, data))
    done = board.bring_cells()
    jobs = [
        replace(job, seconds=seconds[job.name] * job.left(comparison.compare.seeds, done))
        for job in jobs
    ]
    section, whole = comparison.compare, sum(job.seconds for job in jobs)
    minutes, busy = clock_minutes(whole, section.jobs)
    say(
        log,
        f"{board.folder}: {len(jobs)} of {len(_jobs(comparison))} arms x budgets to run, "
        f"{section.seeds} seeds and {section.trials} trials each; "
        "estimated from a step of each arm and an evaluation here, if no trial is given up: "
        f"{whole / 60:.1f} CPU-minutes, {minutes:.1f} by the clock{' of one worker' * shared} "
        f"({busy})",
    )
    return jobs


def _known(board: Board) -> dict[str, float]:
    """What the first worker estimated; nothing where it did not yet."""
    data = board.patiently(lambda: board.store.read(_ESTIMATES, most=_MOST))
    if data is None:
        return {}
    try:
        values = parse_json(data, _ESTIMATES, error=ArtifactError)
    except ArtifactError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if isinstance(value, float)}


def check_comparison(comparison: Comparison) -> dict[str, Any]:
    """Check a comparison as it begins: every arm's recipe, budgets against labels, retained sets
    against the target's.

    Returns:
        Names of its arms, its budgets, how many labels there are for the largest, cells, and
        trainings where no trial is given up.

    Raises:
        RecipeError, DataError: as :func:`compare`.
    """
    target, section = _check(comparison), comparison.compare
    trained = [arm for arm in section.arms if arm.kind != START]
    each = {"soup": section.soup, "self_train": 2}  # with the other members, with the teacher
    runs = [
        each.get(arm.kind, 1)
        * ((section.trials if search_space(comparison, arm) else 1) + section.seeds - 1)
        for arm in trained
    ]
    return {
        "arms": [arm.label for arm in section.arms],
        "budgets": section.budgets,
        "unit": "labels of each class" if target.per_class else "samples",
        "labels": target.labels_left,
        "cells": len(section.arms) * len(section.budgets) * section.seeds,
        "trainings": sum(runs) * len(section.budgets),
        "retained": [kept.name for kept in target.retained],
    }


def _check(comparison: Comparison) -> Target:
    """Check the arms and the data before the first training."""
    target = Target(comparison)
    for arm in comparison.compare.arms:
        if arm.kind != START:
            first_recipe(comparison, arm, comparison.compare.budgets[0], target.samples)
    if not any(arm.kind == START for arm in comparison.compare.arms):
        raise RecipeError(
            f"compare.arms: none of kind {START!r}, the start that all are held against: nothing "
            f"could be recommended; add {{kind: {START}}}"
        )
    check_unlabelled(comparison, target)
    check_unlearned(comparison, target)
    return target


def _open(comparison: Comparison, log: logging.Logger) -> Board:
    """Make the comparison's folder, or return to the one that holds it, and to its mirror."""
    folder = Path(comparison.run.dir) if comparison.run.dir else Path("runs") / comparison.name
    recipe = folder / RunFiles.RECIPE
    if not recipe.is_file() and folder.exists() and _is_taken(folder):
        raise UsageError(f"run.dir: {str(folder)!r}: something is there already")
    folder.mkdir(parents=True, exist_ok=True)
    clear_bare(folder)
    text = dump_recipe(comparison).encode()
    if not recipe.is_file():
        create_atomic(recipe, text)
    for change in _check_same(comparison, recipe, f"run.dir: {str(folder)!r}", "run.dir=..."):
        say(log, f"{folder}: {change}")
    check_own_run(folder)
    write_atomic(recipe, text)
    board = Board(folder, comparison.run, log)
    if board.mirrored:
        _open_mirror(comparison, board, text)
    return board


def _open_mirror(comparison: Comparison, board: Board, text: bytes) -> None:
    store = board.store
    if board.patiently(lambda: store.names("manifests")):
        raise UsageError(
            f"run.mirror: {store.url!r}: a run is mirrored there; allowed: another address"
        )
    there = board.patiently(lambda: store.read(RunFiles.RECIPE, most=_MOST))
    if there is None and not board.patiently(lambda: store.create(RunFiles.RECIPE, text)):
        there = board.patiently(lambda: store.read(RunFiles.RECIPE, most=_MOST))
    if there is not None:
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / RunFiles.RECIPE
            path.write_bytes(there)
            _check_same(comparison, path, f"run.mirror: {store.url!r}", "another address")
        board.put(RunFiles.RECIPE)


def _is_taken(folder: Path) -> bool:
    """Whether something is there that another worker does not put there as it begins."""
    names = {path.name for path in folder.iterdir()}
    return RunFiles.RECIPE not in names and any(not name.endswith(".partial") for name in names)


def _check_same(comparison: Comparison, recipe: Path, where: str, elsewhere: str) -> list[str]:
    """Refuse a folder that is of another comparison; give what this one has that differs from the
    one whose recipe lies there, in words."""
    try:
        other = load_comparison(recipe)
    except PtftError as error:
        changes, same = [str(error)], False
    else:
        changes = recipe_changes(comparison, other)
        same = base_values(other) == base_values(comparison)
    if not same:
        raise UsageError(
            f"{where}: holds another run or comparison; {elsewhere} puts this one elsewhere:",
            *(f"  {change}" for change in changes),
        )
    return changes
