"""Checkpoints: save, load and prune them; resume exactly."""

from ptft.checkpoint.background import Background, save_checkpoint
from ptft.checkpoint.folder import (
    checkpoints,
    load_checkpoint,
    prune_checkpoints,
    resume_checkpoint,
)
from ptft.checkpoint.machines import check_shared
from ptft.checkpoint.saving import TrainProgress

__all__ = [
    "Background",
    "TrainProgress",
    "check_shared",
    "checkpoints",
    "load_checkpoint",
    "prune_checkpoints",
    "resume_checkpoint",
    "save_checkpoint",
]
