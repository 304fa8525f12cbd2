"""The trials of an arm: what to set its hyperparameters to next."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ptft.recipe.comparison import Search as Range

__all__ = ["Search", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One trial: dotted keys and values; none for the arm as it stands."""

    values: dict[str, Any]
    handle: Any


class Search:
    """Iterates over trials; the first is always the arm as it stands.

    The rest are Optuna's tree-structured Parzen estimator's (Bergstra et al. 2011), with retention
    as a constraint; the same seed and answers give the same trials.

    Args:
        space: dotted keys and what they may be.
        trials: how many; one where there is nothing to choose.
        seed: of the sampler.
    """

    def __init__(self, space: Mapping[str, Range | list[Any]], *, trials: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self.trials = trials if space else 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constraints are marked experimental
            sampler = optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=2,
                constraints_func=lambda trial: (trial.user_attrs["short_of"],),
            )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._optuna = optuna

    def __iter__(self) -> Iterator[Trial]:
        yield Trial({}, None)
        for _ in range(self.trials - 1):
            trial = self._study.ask()
            yield Trial(
                {key: _suggest(trial, key, part) for key, part in self.space.items()}, trial
            )

    def tell(self, trial: Trial, value: float, *, short_of: float) -> None:
        """What a trial reached; ``short_of`` above 0 breaks the retention constraint."""
        if trial.handle is None:
            return
        trial.handle.set_user_attr("short_of", short_of)
        self._study.tell(trial.handle, value)


def _suggest(trial: Any, key: str, part: Range | list[Any]) -> Any:
    if isinstance(part, list):
        return trial.suggest_categorical(key, part)
    return trial.suggest_float(key, part.low, part.high, log=part.log)
