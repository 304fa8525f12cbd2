"""Imports what measurements need: once, in the process that they are forked from."""

from ptft.compat import import_open_clip

import_open_clip()
