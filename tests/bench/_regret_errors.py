"""How far from test what is believed of arms' figures lies, by one way of reading answers."""

from collections.abc import Iterable, Sequence

import numpy as np

from ptft.compare.gathered import Arm
from ptft.compare.posterior import target_belief

__all__ = ["figure_errors"]


def figure_errors(sets: Iterable[Sequence[Arm]]) -> list[float]:
    """The root of the mean square, in points, of what is believed of an arm's figure by its budget
    alone, less what test shows, each against the mean of the arms that learn from the start; of the
    smallest budget of all sets, the next, and so on."""
    errors: list[list[float]] = []
    for arms in sets:
        for number, budget in enumerate(sorted({arm.budget for arm in arms})):
            at = [
                arm
                for arm in arms
                if arm.budget == budget and arm.kind not in ("zero_shot", "scratch")
            ]
            believed_a = target_belief([arm.asked for arm in at]).mean_a
            test_a = np.array([arm.test for arm in at])
            apart_a = (believed_a - believed_a.mean()) - (test_a - test_a.mean())
            if number == len(errors):
                errors.append([])
            errors[number].append(float((apart_a**2).mean()))
    return [100 * float(np.sqrt(np.mean(found))) for found in errors]
