"""What other budgets tell of an arm, on arms whose figures are known."""

import numpy as np
import pytest

from ptft.compare.pooling import likeness, pooled_beliefs
from ptft.compare.posterior import ArmAnswers, target_belief

ARMS = [f"arm{number}" for number in range(6)]


def answers(rng: np.random.Generator, figure: float, queries: range) -> ArmAnswers:
    return ArmAnswers(queries, (rng.random((1, len(queries))) < figure).astype(float))


def test_pooled_figures_are_nearer_to_the_truth_and_their_intervals_hold() -> None:
    rng = np.random.default_rng(0)
    alone, pooled, held = [], [], []
    for _ in range(40):
        adds = rng.normal(0.0, 0.08, len(ARMS))
        truth = {
            budget: level + adds + rng.normal(0.0, 0.02, len(ARMS))
            for budget, level in ((4, 0.5), (16, 0.6), (64, 0.7))
        }
        asked = {
            budget: {
                name: answers(rng, figure, range(5 * budget))
                for name, figure in zip(ARMS, figures, strict=True)
            }
            for budget, figures in truth.items()
        }
        for belief, (budget, figures) in zip(pooled_beliefs(asked), truth.items(), strict=True):
            own = target_belief(list(asked[budget].values())).mean_a
            alone.append(np.mean((own - figures) ** 2))
            pooled.append(np.mean((belief.mean_a - figures) ** 2))
            held += list(np.abs(belief.mean_a - figures) < 1.96 * belief.deviation_a)
    assert np.mean(pooled) < 0.5 * np.mean(alone)
    assert 0.9 <= np.mean(held) <= 0.99


def test_luck_with_questions_that_two_budgets_share_is_counted_once() -> None:
    rng = np.random.default_rng(1)
    few = {name: answers(rng, 0.6, range(40)) for name in ARMS}
    others = {name: ArmAnswers(range(40, 80), one.hits_sq) for name, one in few.items()}

    def apart(*budgets: dict[str, ArmAnswers]) -> float:
        beliefs = pooled_beliefs({4 * 4**n: arms for n, arms in enumerate(budgets)})
        return float(beliefs[0].mean_a.std())

    assert apart(few, few) <= apart(few)
    assert apart(few, others) > 1.2 * apart(few)


def test_a_budget_far_away_tells_less_than_one_nearby() -> None:
    """The first arm is as good as the second here, and better by 20 points elsewhere."""
    rng = np.random.default_rng(2)
    here = {name: answers(rng, 0.5, range(30)) for name in ARMS}
    best, other = 0, 1
    here[ARMS[best]] = here[ARMS[other]]
    figures = [0.8, 0.6, 0.7, 0.7, 0.7, 0.7]

    def ahead(budget: int) -> float:
        there = {
            name: answers(rng, figure, range(100, 1100))
            for name, figure in zip(ARMS, figures, strict=True)
        }
        belief, _ = pooled_beliefs({2: here, budget: there})
        return float(belief.mean_a[best] - belief.mean_a[other])

    assert ahead(8) > ahead(2048) > 0.0


def test_copies_of_arms_do_not_say_that_arms_lie_near_each_other() -> None:
    """A mix that has all of its arm's weights, and a penalty that changes next to nothing: three
    arms of which two are no news. What nine weak answers tell of the strong one is little."""
    rng = np.random.default_rng(4)
    figures, held = {"strong": 0.16, "weak": 0.04, "start": 0.04}, []
    for _ in range(20):
        asked = {}
        for budget in (32, 128, 384):
            queries = range(budget, budget + 250)
            own = {name: answers(rng, figure, queries) for name, figure in figures.items()}
            asked[budget] = own | {
                f"{name} {copy}": one for name, one in own.items() for copy in "abc"
            }
        for belief, arms in zip(pooled_beliefs(asked), asked.values(), strict=True):
            strong, weak = (list(arms).index(name) for name in ("strong", "weak"))
            ahead = belief.mean_a[strong] - belief.mean_a[weak]
            error = np.sqrt(belief.cov_aa[strong, strong] + belief.cov_aa[weak, weak])
            held.append(abs(ahead - 0.12) < 1.96 * error)
    assert np.mean(held) >= 0.85


def test_arms_are_as_alike_as_their_answers() -> None:
    """By a loop over pairs and questions; an arm that is absent at a budget is asked less."""
    rng = np.random.default_rng(5)
    asked = {
        budget: {name: answers(rng, figure, range(budget)) for name, figure in own.items()}
        for budget, own in ((8, {"a": 0.5, "b": 0.7}), (32, {"a": 0.6, "b": 0.7, "c": 0.2}))
    }
    apart = {}
    for pair in (("a", "b"), ("a", "c"), ("b", "c")):
        total = count = 0.0
        for arms in asked.values():
            if set(pair) <= set(arms):
                one, other = (arms[name].hits_sq[0] for name in pair)
                for mine, theirs in zip(one, other, strict=True):
                    total += (mine - theirs) ** 2
                    count += 1
        apart[pair] = total / count
    usual = sum(apart.values()) / 3
    rows = [np.concatenate([one.hits_sq for one in arms.values()]) for arms in asked.values()]
    found = likeness(rows, [list(arms) for arms in asked.values()])
    assert found.shape == (5, 5)  # a and b at 8; a, b and c at 32
    for (one, other), distance in apart.items():
        places = {"a": 2, "b": 3, "c": 4}
        assert found[places[one], places[other]] == pytest.approx(np.exp(-distance / usual))
    assert np.allclose(found[0], found[2]) and found[0, 2] == pytest.approx(1.0)


def test_arms_that_were_never_asked_together_still_have_a_prior() -> None:
    rng = np.random.default_rng(6)
    asked = {
        2: {"a": answers(rng, 0.5, range(30)), "b": answers(rng, 0.5, range(30))},
        8: {"c": answers(rng, 0.5, range(30)), "b": answers(rng, 0.5, range(30))},
    }
    for belief in pooled_beliefs(asked):
        assert np.isfinite(belief.mean_a).all()
        assert np.linalg.eigvalsh(belief.cov_aa).min() > -1e-9


def test_at_one_budget_and_with_one_arm_the_figure_is_what_was_seen() -> None:
    rng = np.random.default_rng(3)
    one = {ARMS[0]: answers(rng, 0.5, range(50))}
    [belief] = pooled_beliefs({8: one})
    assert belief.mean_a == pytest.approx(target_belief(list(one.values())).mean_a)
