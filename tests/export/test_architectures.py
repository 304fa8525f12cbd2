"""Which class of transformers, and which network of timm, every architecture of open_clip is."""

from collections import Counter

import pytest

from ptft.export.library_files import LIBRARY_TOLERANCE, Library
from tests.support.architectures import convert_all, names
from tests.support.whole import WHOLE

pytestmark = WHOLE

COUNTS = {
    "CLIPModel": 32,
    "MetaClip2Model": 7,
    "SiglipModel": 26,
    "VisionTextDualEncoderModel": 41,
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Library]]:
    return convert_all(tmp_path_factory.mktemp("models"), names())


def test_how_many_are_exactly_a_class(libraries: dict[str, dict[str, Library]]) -> None:
    """``write_library_files`` has loaded each and held it to the model's own embeddings."""
    assert len(libraries) == 140, "all 144 but CoCa's four"
    counts = Counter(found["transformers"].loads for found in libraries.values())
    assert {name: number for name, number in counts.items() if name is not None} == COUNTS
    for name, found in libraries.items():
        for library in found.values():
            assert (library.loads is None) == (library.reason is not None)
            assert library.max_abs is None or library.max_abs <= LIBRARY_TOLERANCE, name
