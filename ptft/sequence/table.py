"""What a sequence's models measure on every domain: a table that grows stage by stage, on disk."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, read_json, write_json
from ptft.distributed import World
from ptft.evaluate import evaluate
from ptft.evaluate.ranks import scores_within
from ptft.model import DualEncoder
from ptft.pages.markdown import inline
from ptft.pages.markdown import row as markdown_row
from ptft.recipe import StagedRecipe
from ptft.runs.folder import RunRecord, note_test_read, write_run
from ptft.speech import say
from ptft.train.setup import choose_device

__all__ = ["Row", "StageRows", "summary", "table"]

Row = dict[str, float]
"""Figures by column."""


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


class StageRows:
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
        return bool(self.world.on_first(lambda: after in self.read()["rows"]))

    def measure(self, after: str, load: Callable[[], DualEncoder]) -> None:
        """Measure every column, unless that was done; on the first rank, while others wait."""
        self.world.on_first(lambda: self._measure(after, load))

    def _measure(self, after: str, load: Callable[[], DualEncoder]) -> None:
        found, sequence = self.read(), self.sequence
        if after in found["rows"]:
            return
        columns = sequence.columns
        note_test_read(self.folder, self.record, columns, by=f"train, after {after}")
        with scores_within(sequence.run.evaluate_mb):
            metrics = evaluate(
                load().eval(),
                columns,
                sequence.data,
                seed=sequence.seed,
                device=choose_device(sequence.run),
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


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
