"""Checkpoints: save, load and prune them; resume exactly."""

from ptft.checkpoint.folder import (
    TrainProgress,
    checkpoints,
    load_checkpoint,
    prune_checkpoints,
    resume_checkpoint,
    save_checkpoint,
)

__all__ = [
    "TrainProgress",
    "checkpoints",
    "load_checkpoint",
    "prune_checkpoints",
    "resume_checkpoint",
    "save_checkpoint",
]
