"""Arms at four budgets with three seeds on photographs: groceries, and digits of sign language.

Both start from the pretrained MobileNetV2 of ../shared/data. It has no text tower that knows names,
so that the start tells classes by chance, and there is nothing to retain.
"""

import tempfile
from pathlib import Path

from tests.bench._compare import compared
from tests.bench._parts import shared_data

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


_RECIPES = {"grocery": "compare/grocery", "digits": "compare/sign-digits"}


def run(*, smoke: bool = False) -> dict[str, float]:
    shared_data("grocery", "sign_digits", "mobilenetv2")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe in list(_RECIPES.items())[smoke:]:
            found = compared(recipe, Path(folder) / name, smoke=smoke)
            figures |= {f"{name}_{key}": value for key, value in found.items()}
    return figures
