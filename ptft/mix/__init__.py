"""Means of the weights of trained models: WiSE-FT with a start, soups of several runs."""

from ptft.mix.choose import Choice
from ptft.mix.run import mix

__all__ = ["Choice", "mix"]
