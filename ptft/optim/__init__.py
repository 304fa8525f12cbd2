"""How weights learn: the optimiser, its parameter groups, and the schedule of its rate."""

from ptft.optim.build import build_optimizer, parameter_names
from ptft.optim.lbfgs import Lbfgs, check_whole_batch
from ptft.optim.schedule import learning_rate_factor, set_learning_rate, total_samples

__all__ = [
    "Lbfgs",
    "build_optimizer",
    "check_whole_batch",
    "learning_rate_factor",
    "parameter_names",
    "set_learning_rate",
    "total_samples",
]
