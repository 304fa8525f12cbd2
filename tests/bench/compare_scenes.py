"""Eight arms at four budgets with three seeds on drawn scenes: time, regret, what is kept.

The start is `ptft train pretrain/scenes` (its time is apart); the target is line drawings, what is
to be retained the shaded pictures of the start.
"""

from tests.bench._compare import BARS, from_start

__all__ = ["BARS", "run"]


def run(*, smoke: bool = False) -> dict[str, float]:
    return from_start("pretrain/scenes", "compare/scenes", smoke=smoke)
