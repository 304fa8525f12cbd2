"""A sequence of domains: one run after another, each going on from the model of the one before.

After each stage every domain is measured, those before it and those to come, so that the table
shows what was learned, what of it was lost again, and what the start knew of domains not seen yet.
A sequence that was stopped or killed goes on within its stage; what is measured is on disk.
"""

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, hash_files, read_json, write_atomic, write_json
from ptft.data import open_split
from ptft.distributed import World
from ptft.evaluate import evaluate
from ptft.model import DualEncoder, build_model, load_model, save_model
from ptft.model.average import interpolate
from ptft.model.store import WEIGHTS
from ptft.pages.markdown import inline
from ptft.pages.markdown import row as markdown_row
from ptft.recipe import GuardSection, Recipe, StagedRecipe, stage_recipe
from ptft.runs.data_record import Going
from ptft.runs.folder import (
    RunRecord,
    RunStatus,
    note_test_read,
    open_together,
    start_together,
    write_run,
)
from ptft.runs.lock import claim_run
from ptft.speech import say
from ptft.train.setup import choose_device

__all__ = ["Ended", "Outcome", "Row", "run_stages", "summary", "table"]

Row = dict[str, float]
"""Figures by column."""

_MIXED = "mixed"  # in a stage's folder: its model after mixing with its start


@dataclass(frozen=True)
class Ended:
    """How a stage's run ended: whether at its end, and the signal that came, if one did."""

    finished: bool
    signal: int | None


Outcome = tuple[Path, Ended, dict[str, Any]]
"""The folder of a sequence, how it ended, and its table."""


def run_stages(
    sequence: StagedRecipe,
    run: Callable[[Recipe, bool, ExitStack], Ended],
    *,
    going: Going,
    log: logging.Logger,
    world: World,
) -> Outcome:
    """Run the stages that are not finished, and measure after each.

    Args:
        run: runs a recipe, resuming where it is told to.
        going: whether to go on with a sequence that lies there, and with which data.

    Raises:
        UsageError: the folder is taken, or there is nothing to go on with.
        DataError: the data changed since the sequence began.
        All that a run raises.
    """
    folder, record = open_together(sequence, world, resume=going.resume)
    if record is not None and record.status == RunStatus.FINISHED:
        say(log, f"{folder}: finished before; nothing to do")
        return folder, Ended(True, None), world.told(lambda: read_json(folder / RunFiles.STAGES))
    with ExitStack() as held:
        world.told(partial(held.enter_context, claim_run(folder)))
        total = len(sequence.stages)
        if record is None:
            device = str(choose_device(sequence))
            record = start_together(folder, sequence, world, device=device, total=total)
            going.begin(folder, sequence, world)
        else:
            for note in going.hold(folder, sequence, record, world):
                say(log, f"  {note}")
        record.status, record.error = RunStatus.RUNNING, ""
        rows = _Rows(sequence, folder, record, log, world)
        rows.measure("start", lambda: _starting_model(sequence))
        for number, stage in enumerate(sequence.stages):
            place = folder / f"{number + 1}-{stage.name}"
            if rows.known(stage.name):
                continue
            say(log, f"{folder}: stage {number + 1} of {total}: {stage.name}")
            recipe = stage_recipe(
                sequence,
                number,
                start=_start_of(sequence, folder, number),
                folder=str(place),
                samples=_own_samples(sequence, number),
            )
            begun = world.told(partial(_begun, place))
            with ExitStack() as stack, _told_of(folder, record, world):
                ended = run(recipe, begun, stack)
            if ended.finished:
                world.told(partial(_mix, place, recipe, sequence.guard))
            if not ended.finished or ended.signal is not None:
                return folder, _stopped(folder, record, ended, world), rows.read()
            rows.measure(stage.name, partial(_load, place))
        world.told(lambda: _finish(folder, record, sequence, rows.read(), log))
    return folder, Ended(True, None), world.told(rows.read)


def summary(sequence: StagedRecipe, rows: dict[str, Row]) -> dict[str, float]:
    """What a sequence gained and lost, by its rows (``start``, then each stage's); shares of 1.

    ``zero_shot`` and ``transfer`` are means over the domains of all stages but the first: before
    any stage, and over the stages before the domain's own (ZSCL, Zheng et al. 2023, section 5.1);
    ``transfer_loss`` is what the second is lower by. ``last`` and ``average`` are means over all
    stages' domains, after the last stage and over all stages. ``backward_loss``: how much lower a
    domain is after the last stage than after its own, on average of all but the last;
    ``known_loss``: how much lower the other columns are than at the start.
    """
    names = [stage.name for stage in sequence.stages]
    others = [item.label for item in sequence.evaluate]
    final = rows[names[-1]]
    figures = {
        "last": _mean([final[name] for name in names]),
        "average": _mean([rows[after][name] for after in names for name in names]),
    }
    if len(names) > 1:
        zero_shot = _mean([rows["start"][name] for name in names[1:]])
        transfer = _mean(
            [
                _mean([rows[after][name] for after in names[:number]])
                for number, name in enumerate(names)
                if number
            ]
        )
        figures |= {
            "zero_shot": zero_shot,
            "transfer": transfer,
            "transfer_loss": zero_shot - transfer,
            "backward_loss": _mean([rows[name][name] - final[name] for name in names[:-1]]),
        }
    if others:
        figures["known_loss"] = _mean([rows["start"][name] - final[name] for name in others])
    return figures


def table(sequence: StagedRecipe, rows: dict[str, Row]) -> str:
    """The rows in Markdown: after each stage, each column's figure; a stage's own is in bold."""
    columns = [item.label for item in sequence.columns]
    metrics = {sequence.metric_of(item) for item in sequence.columns}
    head = f"after ({', '.join(sorted(metrics))})"
    lines = [markdown_row(map(inline, [head, *columns])), f"|{'---|' * (len(columns) + 1)}"]
    for after, row in rows.items():
        shown = [f"**{row[c]:.1%}**" if c == after else f"{row[c]:.1%}" for c in columns]
        lines.append(markdown_row([inline(after), *shown]))
    return "\n".join(lines)


class _Rows:
    """The table of a sequence, on disk as it grows."""

    def __init__(
        self,
        sequence: StagedRecipe,
        folder: Path,
        record: RunRecord,
        log: logging.Logger,
        world: World,
    ) -> None:
        self.sequence = sequence
        self.folder = folder
        self.record = record
        self.log = log
        self.world = world

    def read(self) -> dict[str, Any]:
        path = self.folder / RunFiles.STAGES
        found: dict[str, Any] = read_json(path) if path.is_file() else {"rows": {}}
        return found

    def known(self, after: str) -> bool:
        return bool(self.world.told(lambda: after in self.read()["rows"]))

    def measure(self, after: str, load: Callable[[], DualEncoder]) -> None:
        """Measure every column, unless that was done; on the first rank, while others wait."""
        self.world.told(lambda: self._measure(after, load))

    def _measure(self, after: str, load: Callable[[], DualEncoder]) -> None:
        found, sequence = self.read(), self.sequence
        if after in found["rows"]:
            return
        columns = sequence.columns
        note_test_read(self.folder, self.record, columns, by=f"train, after {after}")
        metrics = evaluate(
            load().eval(),
            columns,
            sequence.data,
            seed=sequence.seed,
            device=choose_device(sequence),
            workers=sequence.run.workers,
        )
        row = {item.label: float(metrics[item.label][sequence.metric_of(item)]) for item in columns}
        found["rows"][after] = row
        found["metrics"] = {**found.get("metrics", {}), after: metrics}
        self.record.step = len(found["rows"]) - 1
        write_json(self.folder / RunFiles.STAGES, found)
        write_run(self.folder, self.record)
        shown = ", ".join(f"{name} {value:.1%}" for name, value in row.items())
        say(self.log, f"after {after}: {shown}")


def _starting_model(sequence: StagedRecipe) -> DualEncoder:
    return build_model(sequence.model, sequence.init, sequence.objective, seed=sequence.seed)


def _start_of(sequence: StagedRecipe, folder: Path, number: int) -> str | None:
    if number == 0:
        return None
    return str(_model_of(folder / f"{number}-{sequence.stages[number - 1].name}"))


def _model_of(place: Path) -> Path:
    """A stage's model: mixed, where it is."""
    mixed = place / _MIXED
    return mixed if mixed.is_dir() else place / RunFiles.FINAL


def _load(place: Path) -> DualEncoder:
    return load_model(_model_of(place))


def _own_samples(sequence: StagedRecipe, number: int) -> int:
    if sequence.optim.epochs is None:
        return 1
    return len(open_split(sequence.stages[number].data, "train", seed=sequence.seed))


def _begun(place: Path) -> bool:
    """Whether a stage's run can be gone on with; what a kill left before that is cleared away."""
    if (place / RunFiles.RUN).is_file():
        return True
    shutil.rmtree(place, ignore_errors=True)
    return False


def _mix(place: Path, recipe: Recipe, guard: GuardSection | None) -> None:
    """Leave a stage's model mixed with its start, where the guard says so."""
    mixed, unfinished = place / _MIXED, place / f".{_MIXED}.partial"
    if guard is None or guard.mix == 1.0 or mixed.is_dir():
        return
    start = build_model(recipe.model, recipe.init, recipe.objective, seed=recipe.seed)
    shutil.rmtree(unfinished, ignore_errors=True)
    save_model(interpolate(start, load_model(place / RunFiles.FINAL), guard.mix), unfinished)
    unfinished.rename(mixed)


@contextmanager
def _told_of(folder: Path, record: RunRecord, world: World) -> Iterator[None]:
    """Leave word, in the sequence's record too, of an error that ends a stage."""
    try:
        yield
    except Exception as error:
        record.status, record.error = RunStatus.FAILED, str(error)
        if world.first:
            with suppress(OSError):
                write_run(folder, record)
        raise


def _stopped(folder: Path, record: RunRecord, ended: Ended, world: World) -> Ended:
    record.status = RunStatus.STOPPED
    if world.first:
        write_run(folder, record)
    return Ended(False, ended.signal)


def _finish(
    folder: Path,
    record: RunRecord,
    sequence: StagedRecipe,
    found: dict[str, Any],
    log: logging.Logger,
) -> None:
    """Leave the last stage's model, its figures and the table in the sequence's folder."""
    last = sequence.stages[-1].name
    model = _model_of(folder / f"{len(sequence.stages)}-{last}")
    final, unfinished = folder / RunFiles.FINAL, folder / f".{RunFiles.FINAL}.partial"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(model, unfinished, copy_function=_link)
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    found["summary"] = summary(sequence, found["rows"])
    write_json(folder / RunFiles.STAGES, found)
    write_json(folder / RunFiles.METRICS, found["metrics"][last])
    text = table(sequence, found["rows"])
    told = ", ".join(f"{name} {value:.1%}" for name, value in found["summary"].items())
    write_atomic(folder / RunFiles.STAGES_TABLE, f"{text}\n\n{told}\n")
    say(log, f"{text}\n{told}")
    record.files = hash_files(final)
    record.weights_digest = record.files[WEIGHTS]["sha256"]
    record.status = RunStatus.FINISHED
    write_run(folder, record)


def _link(source: str, target: str) -> str:
    """A second name for a file's bytes, or a copy where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
