"""Which class of transformers, and which network of timm, every architecture of open_clip is."""

import json
from collections import Counter

import pytest

from ptft.compat import import_open_clip
from ptft.errors import ModelError
from ptft.export.golden import make_golden
from ptft.export.library_files import TOLERANCE, Library, write_library_files
from ptft.export.model_files import write_model_files
from tests.architectures import names, small_model, small_timm

COUNTS = {
    "CLIPModel": 32,
    "MetaClip2Model": 7,
    "SiglipModel": 26,
    "VisionTextDualEncoderModel": 41,
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Library]]:
    """architecture -> library -> what its export found; what ptft does not support is left out.

    Architectures whose small forms are the same are exported once.
    """
    found: dict[str, dict[str, Library]] = {}
    done: dict[str, dict[str, Library]] = {}
    with small_timm():
        for name in names():
            folder = tmp_path_factory.mktemp("model")
            try:
                model = small_model(name, folder)
            except ModelError:
                assert "multimodal_cfg" in import_open_clip().get_model_config(name)
                continue
            key = json.dumps(dict(model.spec.config), sort_keys=True)
            if key not in done:
                (folder / "out").mkdir()
                write_model_files(model, folder / "out")
                done[key] = write_library_files(model, make_golden(model), folder / "out")
            found[name] = done[key]
    return found


def test_how_many_are_exactly_a_class(libraries: dict[str, dict[str, Library]]) -> None:
    """``write_library_files`` has loaded each and held it to the model's own embeddings."""
    assert len(libraries) == 140, "all 144 but CoCa's four"
    counts = Counter(found["transformers"].loads for found in libraries.values())
    assert {name: number for name, number in counts.items() if name is not None} == COUNTS
    for name, found in libraries.items():
        for library in found.values():
            assert (library.loads is None) == (library.reason is not None)
            assert library.max_abs is None or library.max_abs <= TOLERANCE, name
