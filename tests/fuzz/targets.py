"""All targets by name."""

from tests.fuzz.harness import Target
from tests.fuzz.targets_data import TARGETS as _DATA
from tests.fuzz.targets_found import TARGETS as _FOUND
from tests.fuzz.targets_model import TARGETS as _MODEL
from tests.fuzz.targets_packed import TARGETS as _PACKED

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {**_DATA, **_PACKED, **_MODEL, **_FOUND}
