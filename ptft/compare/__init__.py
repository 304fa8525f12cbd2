"""Which method wins in a user's own domain: arms, label budgets, seeds, and a recommendation."""

from ptft.compare.run import ComparisonOutcome, compare

__all__ = ["ComparisonOutcome", "compare"]
