"""Eight arms at four budgets with three seeds on emoji of another drawing style.

The start is `ptft train pretrain/emoji` on noto, twemoji and fluent3d (its time is apart); the
target is fluenthc, what is to be retained noto and twemoji. Needs ../shared/data.
"""

import tempfile
from pathlib import Path

from tests.bench._compare import BARS, compared, ptft

__all__ = ["BARS", "run"]


def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        minutes = ptft("train", "pretrain/emoji", f"run.dir={folder / 'start'}", "run.trackers=[]")
        start = f"init.from={folder / 'start'}"
        figures = compared("compare/emoji", folder / "compared", start)
    return {**figures, "pretraining_minutes": round(minutes, 1)}
