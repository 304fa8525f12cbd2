"""Arms at four budgets with three seeds on photographs: groceries, and digits of sign language.

Both start from the pretrained MobileNetV2 of ../shared/data. It has no text tower that knows names,
so that the start tells classes by chance, and there is nothing to retain.
"""

import tempfile
from pathlib import Path

from tests.bench._compare import compared

__all__ = ["BARS", "run"]

BARS = {
    "grocery_regret_points": ("<=", 1.0),
    "digits_regret_points": ("<=", 1.0),
    "grocery_arms": (">=", 8),
    "digits_arms": (">=", 8),
    "grocery_budgets": (">=", 4),
    "digits_budgets": (">=", 4),
    "grocery_seeds": (">=", 3),
    "digits_seeds": (">=", 3),
}


def run() -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe in (("grocery", "compare/grocery"), ("digits", "compare/sign-digits")):
            found = compared(recipe, Path(folder) / name)
            figures |= {f"{name}_{key}": value for key, value in found.items()}
    return figures
