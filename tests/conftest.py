"""Fixtures that more than one test file uses."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.loopback_hub import LoopbackHub

os.environ.setdefault("HF_HUB_OFFLINE", "0")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # the loopback Hub speaks LFS only
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker a core, and what it starts

from ptft.compat import prepare_torchvision

prepare_torchvision()  # before a test imports open_clip, timm or transformers itself

REPO = Path(__file__).resolve().parent.parent
SHARED_DATA = REPO.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data here ({SHARED_DATA.name} is not beside the checkout)")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """No test leaves torch with another number of threads, which would move the next one's bits."""
    import torch

    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.fixture(scope="session", autouse=True)
def graphs_are_traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """By all processes of a run, ``tests.support.warm`` among them."""
    import torch

    from tests.support.traced import remember

    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACED", str(place / "traced"))
        patch.setattr(torch.onnx, "export", remember(torch.onnx.export, place / "traced"))
        yield


@pytest.fixture(scope="session")
def repo() -> Path:
    """The top of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of ``tests.serving.checkpoint.make_model``, really exported."""
    from ptft.export import export_model
    from ptft.model import save_model
    from tests.serving.checkpoint import make_model

    place = tmp_path_factory.mktemp("classifier")
    save_model(make_model(), place / "checkpoint")
    export_model(place / "checkpoint", place / "model", name="tiny", precisions=())
    return place / "model"


@pytest.fixture(scope="session")
def detector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of ``tests.support.detectors.counting_detector``, really exported."""
    from ptft.export import export_model
    from ptft.model import save_model
    from tests.support.detectors import counting_detector

    place = tmp_path_factory.mktemp("detector")
    save_model(counting_detector(), place / "checkpoint")
    export_model(place / "checkpoint", place / "model", name="finder", precisions=())
    return place / "model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Iterator[LoopbackHub]":
    """A Hub on loopback, and a client that has no token of its own."""
    from huggingface_hub import constants

    from tests.support.hub_parts import READ_TOKEN, TOKEN
    from tests.support.loopback_hub import LoopbackHub

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with LoopbackHub(token=TOKEN, read_token=READ_TOKEN) as running:
        yield running
