"""Which method wins in a user's own domain: arms, label budgets, seeds, and a recommendation."""

from ptft.compare.run import Outcome, compare

__all__ = ["Outcome", "compare"]
