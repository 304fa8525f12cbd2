"""Eight arms at four budgets with three seeds on emoji of another drawing style.

The start is `ptft train pretrain/emoji` on noto, twemoji and fluent3d (its time is apart); the
target is fluenthc, what is to be retained noto and twemoji. Needs ../shared/data.
"""

from tests.bench._compare import BARS, from_start

__all__ = ["BARS", "run"]


def run() -> dict[str, float]:
    return from_start("pretrain/emoji", "compare/emoji")
