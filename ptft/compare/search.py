"""The trials of an arm: what to set its hyperparameters to next, and which to give up half-way."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ptft.compare.results import TrialRecord
from ptft.recipe.comparison import SearchRange

__all__ = ["GivenUp", "Trial", "TrialSearch"]


class GivenUp(Exception):  # noqa: N818 (it is caught where a trial is run)
    """A trial is worse than those before it were at the same point."""


@dataclass(frozen=True)
class Trial:
    """One trial: dotted keys and values; none for the arm as it stands."""

    values: dict[str, Any]
    handle: Any

    def report(self, number: int, value: float, *, short_of: float) -> None:
        """Report what validation says of the unfinished model.

        Args:
            number: of the report, the same for the same share of the steps.
            value: the target's figure, a share of 1.
            short_of: by how much it retains too little; such a model is worse than any that retains
                enough, and the nearer the better.

        Raises:
            GivenUp: its best so far is below the median of the finished trials at this report.
        """
        self.handle.set_user_attr("short_of", short_of)
        self.handle.report(-short_of if short_of > 0 else value, number)
        if self.handle.should_prune():
            raise GivenUp


class TrialSearch:
    """Iterates over trials; the first is always the arm as it stands.

    The rest are Optuna's tree-structured Parzen estimator's (Bergstra et al. 2011), with retention
    as a constraint, pruned by the median rule (Golovin et al. 2017); the same seed and answers give
    the same trials.

    Args:
        space: dotted keys and what they may be.
        trials: how many; one where there is nothing to choose.
        seed: of the sampler.
    """

    def __init__(
        self, space: Mapping[str, SearchRange | list[Any]], *, trials: int, seed: int
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self.trials = trials if space else 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constraints are marked experimental
            sampler = optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=3,  # the arm as it stands among them
                constraints_func=lambda trial: (trial.user_attrs["short_of"],),
            )
        pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self._pruned = optuna.trial.TrialState.PRUNED

    def __iter__(self) -> Iterator[Trial]:
        for number in range(self.trials):
            trial = self._study.ask()
            space = self.space if number else {}
            yield Trial({key: _suggest(trial, key, part) for key, part in space.items()}, trial)

    def tell(self, trial: Trial, value: float, *, short_of: float) -> None:
        """Record what a trial reached; ``short_of`` above 0 breaks the retention constraint."""
        trial.handle.set_user_attr("short_of", short_of)
        self._study.tell(trial.handle, value)

    def repeat(self, trial: Trial, known: TrialRecord) -> None:
        """Record what a trial reached that was run before, and what it reported on its way."""
        assert trial.values == known.values, "the same seed gives the same trials"
        for number, value, short_of in known.reports:
            with contextlib.suppress(GivenUp):
                trial.report(number, value, short_of=short_of)
        if known.val is None:
            self.give_up(trial)
        else:
            self.tell(trial, known.val, short_of=known.short)

    def give_up(self, trial: Trial) -> None:
        """End a trial early; the sampler goes by its last report, if there is one."""
        trial.handle.set_user_attr("short_of", trial.handle.user_attrs.get("short_of", 0.0))
        self._study.tell(trial.handle, state=self._pruned)


def _suggest(trial: Any, key: str, part: SearchRange | list[Any]) -> Any:
    if isinstance(part, list):
        return trial.suggest_categorical(key, part)
    return trial.suggest_float(key, part.low, part.high, log=part.log)
