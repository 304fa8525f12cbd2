"""Exports that the tests of a file share."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ptft.artifact import FolderFiles, read_json
from ptft.export import folder as folder_module
from ptft.export import towers
from ptft.export.parity import Parity
from ptft.model import DualEncoder
from tests.support.exported import KINDS, NATIVE, Exported


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(NATIVE, tmp_path_factory.mktemp(NATIVE))


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    if request.param == NATIVE:
        return request.getfixturevalue("native")
    return Exported(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def same_towers(native: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing a tower takes seconds: where something else is tested, take the files there are."""

    def copy_towers(model: DualEncoder, folder: Path, **settings: object) -> towers.Written:
        shutil.copytree(native.folder / "onnx", folder / "onnx")
        metrics = read_json(native.folder / FolderFiles.METRICS)
        parity = {name: Parity(**figures) for name, figures in metrics["parity"].items()}
        return towers.Written(parity, metrics["left_out"])

    monkeypatch.setattr(folder_module, "write_towers", copy_towers)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


TEXTS = ["a red circle", "", "Tom &amp; Jerry 🐈 " * 30]
