"""Runs what is left of a comparison, in processes of one thread each, and writes its report."""

import logging
import multiprocessing
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, write_atomic
from ptft.compare.arms import START, cut_short, first_recipe
from ptft.compare.recorded_data import check_recorded_data
from ptft.compare.results import Cell, Cells
from ptft.compare.target import Target
from ptft.errors import ModelError, PtftError, TrainingError, UsageError
from ptft.recipe import ArmSection, Comparison
from ptft.recipe.load import dump_recipe, load_comparison, recipe_digest
from ptft.runs.changes import recipe_changes
from ptft.runs.lock import check_own_run
from ptft.speech import LOG, say

__all__ = ["ComparisonOutcome", "compare"]


@dataclass(frozen=True)
class ComparisonOutcome:
    """What a comparison left behind.

    Attributes:
        folder: of the comparison, with the report.
        cells: all that are finished.
        left: cells that time did not suffice for.
    """

    folder: Path
    cells: list[Cell]
    left: int


@dataclass(frozen=True)
class _Job:
    arm: ArmSection
    budget: int
    seconds: float = 0.0  # estimated, once it is to run


def compare(
    comparison: Comparison,
    *,
    max_minutes: float | None = None,
    accept_changes: bool = False,
    log: logging.Logger = LOG,
) -> ComparisonOutcome:
    """Run every cell that is not finished, then write the report.

    A comparison that was stopped or killed goes on from its finished cells when it is run again.

    Args:
        max_minutes: start nothing after so many minutes; the report says what is left out.
        accept_changes: go on although the data are not those of the finished cells; the report
            says so.
        log: of what it says on its way (:mod:`ptft.speech`).

    Raises:
        RecipeError, DataError: before any training: a budget larger than the data, a class
            without a picture, a retained set that shares pictures with the target; or the data
            changed since the comparison began.
        UsageError: the folder holds another comparison.
    """
    from ptft.compare.estimate import estimate
    from ptft.compare.page import write_report

    section = comparison.compare
    folder = _folder(comparison)
    digest = _digest(comparison)
    cells = Cells(folder, digest)
    changes = check_recorded_data(comparison, folder, cells, accept=accept_changes, log=log)
    target = _check(comparison)
    jobs = [job for job in _jobs(comparison) if not _finished(cells, comparison, job)]
    started = time.monotonic()
    deadline = None if max_minutes is None else started + 60 * max_minutes
    cut = cut_short(comparison, target.samples)
    remarks = [*changes, *([cut] if cut else [])]
    if jobs:
        seconds = estimate(comparison, [(job.arm, job.budget) for job in jobs])
        jobs = [replace(job, seconds=each) for job, each in zip(jobs, seconds, strict=True)]
        say(
            log,
            f"{folder}: {len(jobs)} of {len(_jobs(comparison))} arms x budgets to run, "
            f"{section.seeds} seeds and {section.trials} trials each; "
            "estimated from a step of each arm and an evaluation here: "
            f"{sum(seconds) / section.jobs / 60:.1f} minutes",
        )
        if cut:
            say(log, cut)
        _run(jobs, comparison, folder, digest, deadline, log)
    left = sum(
        cells.read(job.arm.label, job.budget, seed) is None
        for job in _jobs(comparison)
        for seed in range(section.seeds)
    )
    found = cells.all()
    write_report(comparison, found, folder, left=left, remarks=remarks)
    return ComparisonOutcome(folder, found, left)


def _jobs(comparison: Comparison) -> list[_Job]:
    section = comparison.compare
    return [_Job(arm, budget) for budget in section.budgets for arm in section.arms]


def _finished(cells: Cells, comparison: Comparison, job: _Job) -> bool:
    seeds = range(comparison.compare.seeds)
    return all(cells.read(job.arm.label, job.budget, seed) is not None for seed in seeds)


def _run(
    jobs: list[_Job],
    comparison: Comparison,
    folder: Path,
    digest: str,
    deadline: float | None,
    log: logging.Logger,
) -> None:
    """Run jobs in processes; what the finished ones took, against what was estimated of them, says
    how long the others will.

    Smallest budgets come first, so that a report after little time has whole rows; within one the
    longest jobs, so that no process is left with one in the end.
    """
    waiting = sorted(jobs, key=lambda job: (job.budget, -job.seconds))
    started, whole = time.monotonic(), sum(job.seconds for job in jobs)
    running: dict[Future[None], _Job] = {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ptft.compare.preload"])
    with ProcessPoolExecutor(
        comparison.compare.jobs, mp_context=context, max_tasks_per_child=1
    ) as pool:
        while waiting or running:
            out_of_time = deadline is not None and time.monotonic() > deadline
            while waiting and len(running) < comparison.compare.jobs and not out_of_time:
                job = waiting.pop(0)
                values = comparison.model_dump(mode="json", by_alias=True)
                arm = comparison.compare.arms.index(job.arm)
                running[pool.submit(_work, values, arm, job.budget, folder, digest)] = job
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                future.result()
                left = sum(each.seconds for each in (*waiting, *running.values()))
                done = whole - left
                rest = (time.monotonic() - started) * left / done if done > 0 else 0.0
                say(
                    log,
                    f"{job.arm.label} at {job.budget}: done; {done / whole:.0%}, "
                    f"about {rest / 60:.1f} minutes to go",
                )


def _work(values: dict[str, Any], arm: int, budget: int, folder: Path, digest: str) -> None:
    """Run a task in the process that this is called in."""
    from ptft.compare.task import Task

    comparison = Comparison.model_validate(values)
    section = comparison.compare.arms[arm]
    try:
        Task(comparison, section, budget, folder, digest).run()
    except (TrainingError, ModelError) as error:
        raise type(error)(f"{section.label} at {budget}: {error}") from error


def _check(comparison: Comparison) -> Target:
    """Check the arms and the data before the first training."""
    target = Target(comparison)
    for arm in comparison.compare.arms:
        if arm.kind != START:
            first_recipe(comparison, arm, comparison.compare.budgets[0], target.samples)
    return target


def _digest(comparison: Comparison) -> str:
    """Give the digest of what decides the cells; the number of processes does not."""
    section = comparison.compare.model_copy(update={"jobs": 1})
    return recipe_digest(comparison.model_copy(update={"compare": section}))


def _changes(comparison: Comparison, recipe: Path) -> list[str]:
    """In what a comparison differs from the one whose recipe lies in a folder; its cells are of
    one recipe alone, so that none is accepted."""
    try:
        other = load_comparison(recipe)
    except PtftError as error:
        return [str(error)]
    if _digest(other) == _digest(comparison):
        return []
    return recipe_changes(comparison, other)


def _folder(comparison: Comparison) -> Path:
    """Make the comparison's folder, or return to the one that holds this very comparison."""
    folder = Path(comparison.run.dir) if comparison.run.dir else Path("runs") / comparison.name
    recipe = folder / RunFiles.RECIPE
    if recipe.is_file():
        if changes := _changes(comparison, recipe):
            raise UsageError(
                f"run.dir: {str(folder)!r}: holds another run or comparison; run.dir=... puts "
                "this one elsewhere:",
                *(f"  {change}" for change in changes),
            )
        check_own_run(folder)
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"run.dir: {str(folder)!r}: something is there already")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(recipe, dump_recipe(comparison))
    return folder
