"""Imports what every task needs: once, in the process that tasks are forked from."""

import ptft.compare.task  # noqa: F401
from ptft.compat import import_open_clip, import_timm

import_open_clip()
import_timm()
