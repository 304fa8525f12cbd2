"""How often an arm sees the labels, and where a recipe's own length cuts that short."""

from collections.abc import Callable

from ptft.recipe import Comparison
from ptft.recipe.comparison import ArmSection

__all__ = ["cut_short", "passes_of"]


def passes_of(comparison: Comparison, arm: ArmSection, samples: int) -> float:
    """Passes over the labels that an arm which takes steps has: those asked for, or the length of
    the recipe or of the arm itself where that is less.

    Args:
        arm: of one that builds on another, that one.
        samples: labelled samples in all.
    """
    optim = comparison.optim
    seen = arm.set.get("optim.samples_seen", optim.samples_seen)
    epochs = arm.set.get("optim.epochs", optim.epochs)
    own = float(seen) / samples if seen is not None else float(epochs or 0)
    return min(comparison.compare.samples_per_label, own)


def cut_short(comparison: Comparison, samples: Callable[[int], int]) -> str | None:
    """Name in a sentence the budgets at which the recipe's own length gives fewer passes than
    ``samples_per_label`` asks; None if there are none. An arm that has more to learn is far from
    its best after few passes, and validation then says little of what it could do.

    Args:
        samples: labelled samples in all at a budget.
    """
    optim, section = comparison.optim, comparison.compare
    wanted = section.samples_per_label
    key = "epochs" if optim.samples_seen is None else "samples_seen"
    length = getattr(optim, key)
    passes = {b: length / (1 if key == "epochs" else samples(b)) for b in section.budgets}
    cut = [f"{n:.1f} at {budget:,}" for budget, n in passes.items() if n < wanted]
    if not cut:
        return None
    return (
        f"optim.{key}: {length:,} cuts training to fewer passes over the labels than the "
        f"{wanted:g} of compare.samples_per_label: {', '.join(cut)}. Arms with more to learn may "
        "be short of it."
    )
