"""A process that trains a recipe (JSON on stdin) and prints by how many bytes it grew at most."""

import json
import sys
from pathlib import Path

from ptft.compat import import_open_clip, import_timm
from ptft.recipe.load import parse_recipe
from ptft.speech import SILENT
from ptft.train import train


def status(key: str) -> int:
    """Bytes, by Linux's own count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


if __name__ == "__main__":
    import_open_clip()
    import_timm()
    recipe = parse_recipe(json.load(sys.stdin), "stdin")
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    train(recipe, log=SILENT)
    sys.stdout.write(f"{status('VmHWM') - before}\n")
