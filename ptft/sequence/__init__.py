"""Any recipe, run: a run, or a sequence of stages, each a run that goes on from the one before."""

from ptft.sequence.run import run_recipe
from ptft.sequence.table import summary, table

__all__ = ["run_recipe", "summary", "table"]
