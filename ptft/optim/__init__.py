"""How weights learn: the optimiser, its parameter groups, and the schedule of its rate."""

from ptft.optim.build import (
    build_optimizer,
    learning_rate_factor,
    parameter_names,
    set_learning_rate,
    total_samples,
)
from ptft.optim.lbfgs import Lbfgs, check_whole_batch

__all__ = [
    "Lbfgs",
    "build_optimizer",
    "check_whole_batch",
    "learning_rate_factor",
    "parameter_names",
    "set_learning_rate",
    "total_samples",
]
