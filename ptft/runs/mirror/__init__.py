"""A run that outlives its machine: its folder copied elsewhere as it goes on, and brought back."""

from ptft.runs.mirror.fetch import bring_back
from ptft.runs.mirror.upload import Mirror

__all__ = ["Mirror", "bring_back"]
