"""Eight arms at four budgets with three seeds on emoji of another drawing style.

The start is `ptft train pretrain/emoji` on noto, twemoji and fluent3d (its time is apart); the
target is fluenthc, what is to be retained noto and twemoji. Needs ../shared/data.

How much of full fine-tuning's gain is kept has no bar here: there are 117 concepts to choose by,
and a picture or two of them are the 2 % that may be forgotten.
"""

from tests.bench import _compare
from tests.bench._parts import shared_data

__all__ = ["BARS", "run"]

BARS = {name: bar for name, bar in _compare.BARS.items() if name != "gain_kept"}


def run(*, smoke: bool = False) -> dict[str, float]:
    shared_data("emoji")
    return _compare.from_start("pretrain/emoji", "compare/emoji", smoke=smoke)
