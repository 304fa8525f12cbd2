"""Eight arms at four budgets with three seeds on drawn scenes: time, regret, what is kept.

The start is `ptft train pretrain/scenes` (its time is apart); the target is line drawings, what is
to be retained the shaded pictures of the start.
"""

import tempfile
from pathlib import Path

from tests.bench._compare import BARS, compared, ptft

__all__ = ["BARS", "run"]


def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        minutes = ptft("train", "pretrain/scenes", f"run.dir={folder / 'start'}", "run.trackers=[]")
        start = f"init.from={folder / 'start'}"
        figures = compared("compare/scenes", folder / "compared", start)
    return {**figures, "pretraining_minutes": round(minutes, 1)}
