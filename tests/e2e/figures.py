"""What a run on a cluster showed, a JSON object a line: on stdout, and in PTFT_E2E_FIGURES."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Load

__all__ = ["record"]


def record(name: str, seen: Load | None = None, **figures: Any) -> None:
    """Print what was seen, and keep it."""
    found = (
        {}
        if seen is None
        else {k: v for k, v in seen.found.items() if k not in ("digests", "failures")}
    )
    line = json.dumps({"e2e": name, **found, **figures})
    sys.stdout.write(line + "\n")
    if place := os.environ.get("PTFT_E2E_FIGURES"):
        with Path(place).open("a") as file:
            file.write(line + "\n")
