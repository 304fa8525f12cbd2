"""How a model of a comparison does on validation."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ptft.compare.boxes import BoxMeasurement
from ptft.compare.candidates import answers_among
from ptft.compare.kept import kept_belief
from ptft.compare.margins import answers_by_margin
from ptft.compare.metric import Measurement, TextEmbeddings, answers_of
from ptft.compare.stats import AnswerRow, hits_of
from ptft.compare.target import shares
from ptft.data import SampleSet
from ptft.data.sample import Part
from ptft.model import DualEncoder

if TYPE_CHECKING:
    from ptft.compare.task import Task

__all__ = ["Validation"]


class Validation:
    """Figures of a model on validation, each measured when it is first asked for.

    Args:
        task: whose target it is measured on.
        make: gives the model; a mix is made anew each time, so that one lies in memory at a time.
        seed: of the cell.
    """

    def __init__(self, task: "Task", make: Callable[[], DualEncoder], seed: int) -> None:
        self.make = make
        self.embedded: TextEmbeddings = {}
        self._task = task
        self._seed = seed

    @cached_property
    def val(self) -> Measurement | BoxMeasurement:
        """On what every arm is asked."""
        return self._asked(self._task.target.questions)

    @cached_property
    def own(self) -> Measurement | BoxMeasurement:
        """On what the budget allows to choose by, for what is chosen of this arm."""
        asked = self._task.target.questions
        same = np.array_equal(self._allowed.indices, asked.indices)
        return self.val if same else self._asked(self._allowed)

    @property
    def _allowed(self) -> Part:
        return self._task.target.val(self._task.budget, self._seed)

    @cached_property
    def unlearned(self) -> Measurement | BoxMeasurement | None:
        """On samples of ``train`` that it did not learn from; None where none are asked."""
        labels = self._task.target.unlearned(self._task.budget, self._seed)
        return self._asked(labels) if self._task.target.asks(labels) else None

    def _asked(self, samples: SampleSet) -> Measurement | BoxMeasurement:
        return self._task.target.measure(self.make(), samples, self.embedded)

    @property
    def val_asked(self) -> list[float]:
        """See ``Cell.val_asked``."""
        return self._read[0]

    @property
    def train_asked(self) -> AnswerRow:
        """See ``Cell.train_hits``."""
        if self.unlearned is None:
            return ""
        return self._read[1] or answers_of(self.unlearned)

    @cached_property
    def _read(self) -> list[list[float]]:
        """The answers of ``val``, and of ``before`` where there is one, as far as they say more
        than right and wrong; else empty."""
        target = self._task.target
        parts = [(self.val, target.questions)]
        if self.unlearned is not None:
            parts.append((self.unlearned, target.unlearned(self._task.budget, self._seed)))
        return self._answers(parts)

    def _answers(
        self, parts: Sequence[tuple[Measurement | BoxMeasurement, SampleSet]]
    ) -> list[list[float]]:
        test = len(self._task.target.target.test)
        return answers_by_margin([measured for measured, _ in parts]) or [
            answers_among(measured, test / len(samples)) for measured, samples in parts
        ]

    @property
    def figure(self) -> float:
        """What test is expected to show, by what the budget allows to choose by."""
        [asked] = self._answers([(self.own, self._allowed)])
        return sum(asked) / len(asked) if asked else self.own.value

    @cached_property
    def kept(self) -> dict[str, Measurement]:
        """On ``val`` of each retained set."""
        return self._task.target.retained_measured(self.make(), "val", self.embedded)

    @property
    def retained(self) -> dict[str, float]:
        """What is kept of each, as a share of the start's figure."""
        return shares(self.kept, self._task.start_val)

    @cached_property
    def kept_asked(self) -> dict[str, AnswerRow]:
        """See ``Cell.val_kept``."""
        return self._task.target.retained_asked(self.kept)

    @property
    def short(self) -> float:
        """By how much the model probably retains too little; 0 where it probably retains enough."""
        section = self._task.comparison.compare
        rows = (self._task.start_asked, self.kept_asked)
        kept = [{name: hits_of([row]) for name, row in one.items()} for one in rows]
        belief = kept_belief(kept, first=0, sets=self._task.sets, of_val=True)
        return max(0.0, section.retention - belief.surely(section.retention_probability)[1])
