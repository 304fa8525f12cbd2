"""Which method wins in a user's own domain: arms, label budgets, seeds, and a recommendation."""

from ptft.compare.run import LEASE, ComparisonOutcome, check_comparison, compare

__all__ = ["LEASE", "ComparisonOutcome", "check_comparison", "compare"]
