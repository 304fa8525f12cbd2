"""All targets by name."""

from importlib.util import find_spec

from tests.fuzz.harness import Target
from tests.fuzz.targets_data import TARGETS as _DATA
from tests.fuzz.targets_packed import TARGETS as _PACKED

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {**_DATA, **_PACKED}
if find_spec("tests.fuzz.targets_model") is not None:
    from tests.fuzz.targets_model import TARGETS as _MODEL

    TARGETS.update(_MODEL)
