"""One arm at one budget, in a process of its own: its trials on the first seed, then every seed.

Whatever a task does follows from the comparison's recipe, the arm, the budget and the seed, so a
comparison gives the same cells in any order, in one process or many, interrupted or not.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from ptft.artifact import read_json, write_json
from ptft.compare.arms import MIXES, START, STEPLESS
from ptft.compare.boxes import BoxMeasurement
from ptft.compare.candidates import answers_of_pictures
from ptft.compare.count import count_training
from ptft.compare.metric import Measurement, answers_of, bits, bits_of, calibrated
from ptft.compare.passes import passes_of
from ptft.compare.peak import training_peak
from ptft.compare.queries import said_of
from ptft.compare.results import MIXED, Cell, Cells, Costs, TrialRecord
from ptft.compare.selected import kept_sets
from ptft.compare.start import put_head, starting_model
from ptft.compare.stats import AnswerRow
from ptft.compare.target import Target, shares
from ptft.compare.trials import Searched, TrialWatch, search_trials
from ptft.compare.unlabelled import Prepared, measured_recipes, task_recipe
from ptft.compare.validation import Validation
from ptft.data.sample import Part
from ptft.errors import TrainingError
from ptft.model import DualEncoder, load_model
from ptft.model.average import interpolate, soup
from ptft.recipe import ArmSection, Comparison
from ptft.speech import SILENT
from ptft.train import train
from ptft.train.context import Observer
from ptft.train.device import cpu_threads

__all__ = ["Task", "TrainedArm"]

T = TypeVar("T")


@dataclass(frozen=True)
class TrainedArm:
    """An arm that was trained: how it validates, what was chosen for it, and what it cost."""

    validation: Validation
    chosen: dict[str, Any]
    costs: Costs
    trials: list[TrialRecord] = field(default_factory=list)


class Task:
    """Runs the cells of one arm at one budget that are not finished yet.

    Args:
        comparison: the whole recipe.
        arm: of it.
        budget: of it.
        folder: of the comparison.
        name: of the folder below ``tasks`` that it trains in, which is its own.
    """

    def __init__(
        self,
        comparison: Comparison,
        arm: ArmSection,
        budget: int,
        folder: Path,
        *,
        name: str = "",
    ) -> None:
        self.comparison = comparison
        self.arm = arm
        self.budget = budget
        self.folder = folder / "tasks" / (name or f"{arm.label}_{budget}")
        self.cells = Cells(folder, comparison)
        self.target = Target(comparison)
        self.prepared: dict[int, Prepared] = {}  # by seed, of arms that build on another
        self._peak = 0  # of a training, measured while this process holds little else
        if arm.kind != START and self.cells.missing_of(arm.label, budget):
            self._peak = training_peak(measured_recipes(self))
        self.start, self._new_detector = starting_model(comparison, self.target)
        self.target.cache_pictures(self.start.spec.preprocess)
        self.sets = kept_sets(comparison)
        self.start_val, self.start_asked = self._start_on_val()
        self.start_test = self._of_start(
            "hits_test", lambda: bits_of(self.target.retained_measured(self.start, "test"))
        )

    def _start_on_val(self) -> tuple[dict[str, str], dict[str, AnswerRow]]:
        """Hits, and answers as among test's candidates; what is measured for them is let go of."""
        on = cache(partial(self.target.retained_measured, self.start, "val"))
        return (
            self._of_start("hits_val", lambda: bits_of(on())),
            self._of_start("asked_val", lambda: self.target.retained_asked(on())),
        )

    def _of_start(self, name: str, make: Callable[[], dict[str, T]]) -> dict[str, T]:
        """Read the starting model's answers on the retained sets; the first task measures them."""
        path = self.cells.folder.parent / f"start_{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            found: dict[str, T] = read_json(path)
            return found
        answers = make()
        write_json(path, answers)
        return answers

    def validation(self, make: Callable[[], DualEncoder], seed: int) -> Validation:
        """How a model validates."""
        return Validation(self, make, seed)

    @cached_property
    def _counted(self) -> tuple[float, float]:
        """Operations of one sample's training, the same for every trial and seed; what learns."""
        return count_training(measured_recipes(self)[0])

    @cpu_threads(1)
    def run(self) -> None:
        """Finish every cell."""
        seeds = range(self.comparison.compare.seeds)
        if all(self.cells.read(self.arm.label, self.budget, seed) for seed in seeds):
            return
        if self.arm.kind == START:
            for seed in seeds:
                self._write(
                    TrainedArm(Validation(self, lambda: self.start, seed), {}, Costs()), seed
                )
            return
        first = self.cells.read(self.arm.label, self.budget, 0)
        # there already: by the trials of a process that was stopped after them
        search = Searched(first.chosen, first.trials) if first else search_trials(self)
        for seed in seeds:
            if self.cells.read(self.arm.label, self.budget, seed) is None:
                self._fill(seed, search)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fill(self, seed: int, search: Searched) -> None:
        """Finish the cell of a seed and its mix: by another's of the same choice where there is
        one, else by training."""
        cost = round(sum(one.cpu_seconds for one in search.trials), 2)
        searched = cost if seed == 0 and len(search.trials) > 1 else 0.0
        trials = search.trials if seed == 0 else []
        label = self.arm.label
        known = self.cells.relatives(label, self.budget, seed)
        if (same := next((one for one in known if one.chosen == search.chosen), None)) is not None:
            for mix in self.cells.relatives(f"{label}{MIXED}", self.budget, seed):
                if {k: v for k, v in mix.chosen.items() if k != "alpha"} == search.chosen:
                    self.cells.write(
                        replace(mix, costs=replace(mix.costs, search_cpu_seconds=searched))
                    )
            costs = replace(same.costs, search_cpu_seconds=searched)
            self.cells.write(replace(same, costs=costs, trials=trials))
            return
        own = search.best if seed == 0 else None
        trained = own or self.train(seed, search.chosen)
        trained = replace(
            trained, costs=replace(trained.costs, search_cpu_seconds=searched), trials=trials
        )
        if self.arm.kind in MIXES:
            self.mix_with_start(trained, seed)
        self._write(trained, seed)

    def train(
        self, seed: int, chosen: Mapping[str, Any], watch: TrialWatch | None = None
    ) -> TrainedArm:
        """Run the arm's recipe once; the time that ``watch`` takes is not counted as the run's."""
        folder = self.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        recipe = task_recipe(self, seed, chosen)
        wall, cpu = time.perf_counter(), time.process_time()
        observer = Observer(self.comparison.compare.prune_at, watch) if watch else None
        result = train(recipe, record=False, log=SILENT, observer=observer)
        if not result.finished:
            raise TrainingError("a signal stopped it before its end")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if watch:
            cpu, wall = cpu - watch.cpu, wall - watch.wall
        before = self.prepared.get(seed)
        others = before.others if before else ()
        model = soup(list(map(load_model, (folder, *others)))) if others else load_model(folder)
        self.give_head(model)
        flops, share = self._counted
        flops *= recipe.optim.samples_seen or 0
        return TrainedArm(
            Validation(self, lambda: model, seed),
            dict(chosen),
            Costs(
                cpu_seconds=round(cpu + (before.cpu if before else 0.0), 2),
                wall_seconds=round(wall + (before.wall if before else 0.0), 2),
                gpu_seconds=round(wall, 2) if model.device.type == "cuda" else 0.0,
                flops=flops + (before.flops if before else 0.0),
                peak_bytes=self._peak,
                artefact_bytes=_artefact_bytes(result.folder, whole=bool(others)),
                trainable_share=share,
            ),
        )

    def give_head(self, model: DualEncoder) -> None:
        """Give classes that were learned as captions a head of their prompts."""
        if model.head is None:
            put_head(model, self.target, self.comparison)

    @property
    def _passes(self) -> float:
        if self.arm.kind in STEPLESS:
            return 0.0
        base = self.prepared.get(0)
        arm = base.base.arm if base else self.arm
        return passes_of(self.comparison, arm, self.target.samples(self.budget))

    def mix_with_start(self, trained: TrainedArm, seed: int) -> None:
        """WiSE-FT: the mix that validation likes best among those that probably retain enough; of
        those that it likes alike the one with most of what was learned. Where none does, the
        nearest. As all that is chosen, its share is chosen on the first seed for all.
        """
        shares = sorted({*self.comparison.compare.wise, 1.0}, reverse=True)
        if len(shares) == 1:
            return

        @cache
        def validate(share: float) -> Validation:
            if share == 1.0:
                return trained.validation
            learned, new = trained.validation.make(), self._new_detector
            make = partial(interpolate, self.start, learned, share, new_detector=new)
            return Validation(self, make, seed)

        label = f"{self.arm.label}{MIXED}"
        if seed and (first := self.cells.read(label, self.budget, 0)) is not None:
            best = first.chosen["alpha"]
        else:
            ranked = sorted(shares, key=lambda share: -validate(share).figure)
            enough = (share for share in ranked if validate(share).short == 0.0)
            best = next(enough, None) or min(ranked, key=lambda share: validate(share).short)
        mixed = replace(
            trained,
            validation=validate(best),
            chosen={**trained.chosen, "alpha": best},
            trials=[],
        )
        self._write(mixed, seed, label=label)

    def _write(self, trained: TrainedArm, seed: int, *, label: str = "") -> None:
        """Measure a model on test, and write the cell."""
        validation = trained.validation
        model = validation.make()
        val = validation.val
        asked = self.target.questions
        other, labels = validation.unlearned, self.target.unlearned(self.budget, seed)
        test = self.target.measure(model, self.target.target.test, validation.embedded)
        kept = self.target.retained_measured(model, "test", validation.embedded)
        temperature, ece, ece_scaled = calibrated(validation.own, test)
        before = self.prepared.get(seed)
        self.cells.write(
            Cell(
                arm=label or self.arm.label,
                kind=self.arm.kind,
                budget=self.budget,
                seed=seed,
                chosen=trained.chosen,
                val=val.value,
                own=validation.own.value,
                test=test.value,
                val_hits=answers_of(val),
                test_hits=answers_of(test),
                val_retained=validation.retained,
                test_retained=shares(kept, self.start_test),
                ece=ece,
                ece_scaled=ece_scaled,
                temperature=temperature,
                passed_over=test.passed_over,
                test_said=said_of(test, self.target.target.test, self.cells.folder.parent),
                costs=trained.costs,
                trials=trained.trials,
                val_of=_samples(val, asked),
                val_asked=validation.val_asked,
                train_of=_samples(other, labels) if other else [],
                train_hits=validation.train_asked,
                passes=self._passes,
                base=before.base.arm.label if before else "",
                unlabelled=before.pictures if before else 0,
                val_kept=validation.kept_asked,
                test_kept={name: answers_of_pictures(one, bits(one)) for name, one in kept.items()},
            )
        )


def _artefact_bytes(folder: Path, *, whole: bool) -> int:
    """Of what is stored beside the start: an adapter where there is one, which the mean of several
    is not, else the whole model."""
    adapter = folder / "adapter"
    kept = adapter if adapter.is_dir() and not whole else folder / "final"
    return sum(path.stat().st_size for path in kept.rglob("*.safetensors"))


def _samples(measured: Measurement | BoxMeasurement, asked: Part) -> list[int]:
    """Numbers of the samples that are the queries, without those that cannot be read or have no
    class; none where a sample is not one query."""
    places = getattr(measured, "places", None)
    if places is not None:
        found: list[int] = asked.indices[places.cpu().numpy()].tolist()
        return found
    return asked.indices.tolist() if len(measured.hits) == len(asked) else []
