"""Estimates how long a comparison will take from its parts, each timed on this machine now."""

import os
import time
from collections.abc import Sequence

from ptft.compare.arms import MIXES, STEPLESS, first_recipe
from ptft.compare.start import starting_model
from ptft.compare.target import Target
from ptft.recipe import ArmSection, Comparison
from ptft.recipe.comparison import BUILT
from ptft.train.cost.measure import measure_step
from ptft.train.device import cpu_threads, keep_freed_memory
from ptft.train.self_training import unlabelled_pictures

__all__ = ["clock_minutes", "estimate"]


@cpu_threads(1)  # as many as a job has
def estimate(comparison: Comparison, jobs: Sequence[tuple[ArmSection, int]]) -> list[float]:
    """Estimate the CPU seconds of each arm at a budget, if no trial ends early.

    Timed are what a process does before its first training, an evaluation, and of every arm that
    learns the beginning of a run.
    """
    section = comparison.compare
    keep_freed_memory()  # as training does, in whose process a model is evaluated
    started = time.process_time()
    target = Target(comparison)
    model, _ = starting_model(comparison, target)
    target.cache_pictures(model.spec.preprocess)
    target.measure(model, target.target.test)  # the pictures are read once
    first, started = time.process_time() - started, time.process_time()
    target.measure(model, target.target.test)
    once = time.process_time() - started
    sample = once / len(target.target.test)
    tests = sum(len(one.test) for one in (target.target, *target.retained))
    kept = sum(len(one.val) for one in target.retained)
    unlabelled = unlabelled_pictures(comparison)
    pictures = 0 if unlabelled is None else len(unlabelled)
    begun: dict[str, tuple[float, float]] = {}
    estimates: list[float] = []
    for arm, budget in jobs:
        vals = kept + len(target.val(budget, 0))
        asked = len(target.questions) + len(target.unlearned(budget, 0))
        mixed = section.seeds if section.wise and arm.kind in MIXES else 0
        searched = section.trials if arm.kind not in STEPLESS else 1
        validations = searched + section.seeds - 1 + mixed * len(section.wise)
        if searched > 1:
            validations += searched * len(section.prune_at)
        estimates.append(
            first - once + sample * (validations * vals + (section.seeds + mixed) * (tests + asked))
        )
        if arm.kind in STEPLESS:
            continue
        if arm.label not in begun:
            recipe = first_recipe(comparison, arm, section.budgets[0], target.samples)
            started = time.process_time()
            speed = measure_step(recipe, steps=2).samples_per_second
            begun[arm.label] = time.process_time() - started, speed
        ready, speed = begun[arm.label]
        own = first_recipe(comparison, arm, budget, target.samples).optim.samples_seen or 0
        seen = own + _before(comparison, arm, own, pictures)
        estimates[-1] += (searched + section.seeds - 1) * (ready + seen / speed)
    return estimates


def _before(comparison: Comparison, arm: ArmSection, seen: int, pictures: int) -> float:
    """Samples that an arm is shown, or labels, before its own training of ``seen`` samples, of each
    seed."""
    if arm.kind not in BUILT:
        return 0.0
    if arm.kind == "soup":
        return (comparison.compare.soup - 1) * seen
    if arm.kind == "self_train":  # a teacher's steps on the labels, and its answers
        return seen / 4 + pictures
    views = 2 * comparison.compare.unlabelled_passes * pictures
    return views / (comparison.compare.seeds * len(comparison.compare.budgets))


def clock_minutes(cpu_seconds: float, jobs: int) -> tuple[float, str]:
    """Minutes by the clock that so many CPU seconds take in ``jobs`` processes of one thread, if
    the machine stays as busy as it was in the last minute; and how busy that is, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    others = max(0.0, load - 1.0)  # this process was at work itself
    at_once = jobs * min(1.0, cores / (others + jobs))
    return cpu_seconds / at_once / 60, f"{jobs} jobs on {cores} cores, {others:.1f} of them busy"
