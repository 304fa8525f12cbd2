"""How weights learn: the optimiser, its parameter groups, and the schedule of its rate."""

from ptft.optim.build import build_optimizer, parameter_names
from ptft.optim.schedule import learning_rate_factor, set_learning_rate, total_samples

__all__ = [
    "build_optimizer",
    "learning_rate_factor",
    "parameter_names",
    "set_learning_rate",
    "total_samples",
]
