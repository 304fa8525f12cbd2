"""Checkpoints: save, load and prune them; resume exactly."""

from ptft.checkpoint.folder import (
    TrainProgress,
    checkpoints,
    load_checkpoint,
    prune_checkpoints,
    resume_checkpoint,
    save_checkpoint,
)
from ptft.checkpoint.machines import check_shared

__all__ = [
    "TrainProgress",
    "check_shared",
    "checkpoints",
    "load_checkpoint",
    "prune_checkpoints",
    "resume_checkpoint",
    "save_checkpoint",
]
