"""Which share of a fine-tuning to mix with its start.

The rule: the greatest of one validation figure among the shares that keep what the start could do,
and of equals the smallest share, which is nearest to the start. A share costs one run of the
evaluations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ptft.errors import UsageError, suggest
from ptft.evaluate import Figures, evaluate
from ptft.evaluate.ranks import scores_within
from ptft.model import DualEncoder
from ptft.model.average import interpolate
from ptft.recipe import Recipe, check_evaluations, metrics_of

__all__ = ["Choice", "Grid"]


@dataclass(frozen=True)
class Choice:
    """How a share is chosen, and what is measured.

    Attributes:
        recipe: its evaluations, and their data; None: the one that made the first model.
        metric: ``item.figure`` to be greatest; None: the first evaluation's first.
        keep: ``item.figure`` -> the least part of the start's figure that is to remain.
    """

    recipe: Recipe | None = None
    metric: str | None = None
    keep: Mapping[str, float] = field(default_factory=dict)


class Grid:
    """The shares of a fine-tuning that are looked at, and what each measured.

    Args:
        recipe: of the evaluations.
        choice: its recipe is not read.
        alphas: the shares; empty where there is no start.

    Attributes:
        figures: by share, the start's own at 0; then by the names of the evaluations.
        rule: what a share is chosen by, in words; empty where there is no choice.

    Raises:
        UsageError: a name is unknown, or a share would be chosen on a test split.
        RecipeError: an evaluation's data is not there.
    """

    def __init__(self, recipe: Recipe, choice: Choice, alphas: Sequence[float]) -> None:
        check_evaluations(recipe)
        self.recipe = recipe
        self.keep = choice.keep
        self.alphas = sorted(alphas)
        self.figures: dict[float, dict[str, Figures]] = {}
        self.rule = ""
        self._metric = ""
        if choice.metric is not None and len(alphas) < 2:
            raise UsageError("--metric: nothing to choose; allowed with several of --alpha")
        if len(alphas) > 1 or choice.keep:
            self._metric = self._check_names(choice.metric)
            kept = [f"{share:g} of the start's {name}" for name, share in choice.keep.items()]
            kept_words = f" that keeps at least {' and '.join(kept)}" if kept else ""
            self.rule = f"the greatest {self._metric}{kept_words}"

    def measure(self, model: DualEncoder) -> dict[str, Figures]:
        """Run the evaluations of a model, which is on the CPU before and after."""
        with scores_within(self.recipe.run.evaluate_mb):
            figures = evaluate(model, self.recipe.evaluate, self.recipe.data, seed=self.recipe.seed)
        model.cpu()
        return figures

    def best(
        self, start: DualEncoder, trained: DualEncoder, say: Callable[[str], None]
    ) -> tuple[float, DualEncoder]:
        """The share that the rule chooses, and its model.

        Raises:
            UsageError: none keeps what is to be kept.
            ModelError: the two are not of one architecture.
        """
        if self.keep:
            self._measure_share(start, 0.0, say)
        best: tuple[float, DualEncoder] | None = None
        for alpha in self.alphas:
            mixed = interpolate(start, trained, alpha).eval()
            self._measure_share(mixed, alpha, say)
            if self._keeps(alpha) and (best is None or self._value(alpha) > self._value(best[0])):
                best = (alpha, mixed)
        if best is None:
            raise UsageError(self._nothing())
        return best

    def _measure_share(self, model: DualEncoder, alpha: float, say: Callable[[str], None]) -> None:
        if alpha not in self.figures:
            say(f"measuring alpha {alpha:g}")
            self.figures[alpha] = self.measure(model)
        names = dict.fromkeys([self._metric, *self.keep]) if self.rule else {}
        say(" ".join([f"alpha {alpha:g}", *(f"{n} {self._value(alpha, n):.4f}" for n in names)]))

    def _value(self, alpha: float, name: str = "") -> float:
        item, _, figure = (name or self._metric).rpartition(".")
        return float(self.figures[alpha][item][figure]) if item else 0.0

    def _keeps(self, alpha: float) -> bool:
        return all(
            self._value(alpha, name) >= share * self._value(0.0, name)
            for name, share in self.keep.items()
        )

    def _nothing(self) -> str:
        alpha = self.alphas[0]
        found = [
            f"{name} is {self._value(alpha, name):.4f} at {alpha:g}, less than {share:g} of "
            f"{self._value(0.0, name):.4f}"
            for name, share in self.keep.items()
        ]
        return f"--keep: no alpha keeps it ({'; '.join(found)}); allowed: a smaller alpha or share"

    def _check_names(self, wanted: str | None) -> str:
        """The metric, once every name is known."""
        items = {item.name or item.kind: item for item in self.recipe.evaluate}
        known = [
            f"{name}.{figure}"
            for name, item in items.items()
            for figure in metrics_of(item, self.recipe.data)
        ]
        if not known:
            raise UsageError("--recipe: evaluate: empty; name what to choose by")
        metric = wanted or known[0]
        for option, name in [("--metric", metric), *(("--keep", name) for name in self.keep)]:
            if name not in known:
                raise UsageError(f"{option}: {name!r}; {suggest(name, known)}")
            if items[name.rpartition(".")[0]].split == "test":
                raise UsageError(
                    f"{option}: {name!r} is of the test split, which would then test nothing; "
                    "allowed: a figure of val"
                )
        for name, share in self.keep.items():
            if not self.alphas:
                raise UsageError(f"--keep: {name!r}: of a start; allowed with --base")
            if not 0.0 < share <= 1.0:
                raise UsageError(f"--keep: {name}={share:g}; allowed: more than 0, up to 1")
        return metric
