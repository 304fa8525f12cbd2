"""One ONNX file in onnxruntime: the provider that is asked for, and bound buffers."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from ptft.errors import ArtifactError, UsageError
from ptft.onnx.provider import PROVIDERS, Provider
from ptft.onnx.session import Bound, Session

CPU = "CPUExecutionProvider"


@pytest.fixture
def tower(classifier_folder: Path) -> Path:
    return classifier_folder / "onnx" / "text_model.onnx"


@pytest.mark.parametrize("name", [n for n in PROVIDERS if n != "cpu"])
def test_a_provider_that_is_not_there_is_an_error(name: str, tower: Path) -> None:
    if PROVIDERS[name][0] in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has {name}")
    with pytest.raises(UsageError) as caught:
        Session(tower, 1, Provider(name))
    assert str(caught.value).startswith(f"provider {name}: onnxruntime {ort.__version__}")
    assert f"allowed: cpu, auto; pip install {PROVIDERS[name][1]}" in str(caught.value)


def test_one_that_is_there_but_does_not_start_is_an_error(
    tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the driver or a library of CUDA is missing: onnxruntime goes on with the CPU."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [PROVIDERS["cuda"][0], CPU])
    with (
        pytest.raises(UsageError, match="provider cuda: "),
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
    ):
        Session(tower, 1, Provider("cuda"))


def test_without_one_it_takes_what_there_is(tower: Path) -> None:
    assert Session(tower, 1, Provider()).provider == CPU
    assert Session(tower, 1, Provider("cpu")).provider == CPU


def test_a_file_that_is_none_is_an_error_of_the_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    for provider in (Provider(), Provider("cpu")):
        with pytest.raises(ArtifactError, match="onnxruntime cannot load it"):
            Session(broken, 1, provider)


def test_bound_buffers_give_the_same(tower: Path) -> None:
    plain = Session(tower, 1, Provider("cpu"))
    session = ort.InferenceSession(tower, providers=[CPU])
    rng, bound, kept = np.random.default_rng(0), Bound(session), []
    for count, length in ((1, 4), (3, 7), (1, 4), (2, 9), *((n, 5) for n in range(1, 40))):
        tokens = rng.integers(0, 40, (count, length))
        kept.append((bound(tokens), plain(tokens)))
    for found, wanted in kept:  # an answer stays what it was when the next is asked
        np.testing.assert_array_equal(found, wanted)
