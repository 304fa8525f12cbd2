"""How far from test what is believed of arms' figures lies, and how often that is said."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptft.compare.gathered import Arm
from ptft.compare.posterior import ArmAnswers, Belief, target_belief

__all__ = ["Errors", "alone", "figure_errors"]

Asked = Mapping[int, Mapping[str, ArmAnswers]]


@dataclass(frozen=True)
class Errors:
    """Of what is believed of an arm's figure, less what test shows, each against the mean of the
    arms that learn from the start.

    Attributes:
        points: roots of the mean square; of the smallest budget of all sets, the next, and so on.
        held: the share of the 95 % intervals that hold, with test's own error.
    """

    points: list[float]
    held: float

    def __str__(self) -> str:
        points = " ".join(f"{error:.2f}" for error in self.points)
        return f"err by {points} points, budget by budget; {100 * self.held:.1f} % of 95 % hold"


def alone(asked: Asked) -> list[Belief]:
    """Each budget by its own questions."""
    return [target_belief(list(arms.values())) for arms in asked.values()]


def figure_errors(
    sets: Iterable[Sequence[Arm]], believe: Callable[[Asked], Sequence[Belief]]
) -> Errors:
    """The errors of what is believed at each budget of every set."""
    squares: list[list[float]] = []
    held: list[bool] = []
    for arms in sets:
        budgets = sorted({arm.budget for arm in arms})
        at = {budget: [arm for arm in arms if arm.budget == budget] for budget in budgets}
        asked = {budget: {arm.name: arm.asked for arm in own} for budget, own in at.items()}
        for number, (own, belief) in enumerate(zip(at.values(), believe(asked), strict=True)):
            tested = target_belief(
                [ArmAnswers(range(arm.test_sq.shape[1]), arm.test_sq) for arm in own]
            )
            learns = [n for n, arm in enumerate(own) if arm.kind not in ("zero_shot", "scratch")]
            centre = np.eye(len(learns)) - 1 / len(learns)
            apart_a = centre @ (belief.mean_a - np.array([arm.test for arm in own]))[learns]
            cov_aa = (belief.cov_aa + tested.cov_aa)[np.ix_(learns, learns)]
            error_a = np.sqrt(np.diag(centre @ cov_aa @ centre))
            held += (np.abs(apart_a) <= 1.96 * error_a + 1e-9).tolist()
            if number == len(squares):
                squares.append([])
            squares[number].append(float((apart_a**2).mean()))
    return Errors([100 * float(np.sqrt(np.mean(one))) for one in squares], float(np.mean(held)))
