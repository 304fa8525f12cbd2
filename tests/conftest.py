"""Fixtures that more than one test file uses."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "0")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # the loopback Hub speaks LFS only
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

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
    export_model(place / "checkpoint", place / "model", name="tiny")
    return place / "model"
