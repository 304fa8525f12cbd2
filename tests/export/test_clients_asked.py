"""What an export writes when it is for some clients alone, and what it keeps in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ptft.artifact import FolderFiles, read_model_info
from ptft.errors import ExportError, UsageError
from ptft.export import export_model
from ptft.export.folder import CLIENTS
from ptft.export.model_files import map_weights, write_model_files
from ptft.model import load_model
from ptft.onnx.quantise import convert_apart
from ptft.speech import SILENT
from tests.support.exported import Exported
from tests.support.exported_once import native
from tests.support.tiny import build, towers_section

__all__ = ["native"]  # a fixture

_ONNX = {FolderFiles.TEXT_ONNX, FolderFiles.VISION_ONNX, FolderFiles.PREPROCESS_ONNX}
_LIBRARIES = {FolderFiles.CONFIG, FolderFiles.TRANSFORMERS_WEIGHTS}


@pytest.mark.parametrize(
    "client, wanted", [("open_clip", set()), ("transformers", _LIBRARIES), ("onnx", _ONNX)]
)
def test_what_is_asked_for_is_written_as_for_all(
    native: Exported, tmp_path: Path, client: str, wanted: set[str]
) -> None:
    folder = tmp_path / "model"
    made = export_model(
        native.run,
        folder,
        name=native.info.name,
        clients=[client],
        precisions=["fp32"],
        measure=False,
        progress=SILENT.info,
    )
    assert read_model_info(folder) == made
    written = set(made.files)
    assert written & (_ONNX | _LIBRARIES) == wanted
    assert not {name for name in written if name.startswith("onnx/")} - _ONNX
    for name in written - {FolderFiles.METRICS}:  # which say what was measured
        assert (folder / name).read_bytes() == (native.folder / name).read_bytes(), name
    mine, theirs = load_model(folder).state_dict(), load_model(native.folder).state_dict()
    assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())
    card = (folder / FolderFiles.CARD).read_text()
    assert ("import onnxruntime" in card) is (client == "onnx")
    assert ("ONNX files were not asked for" in card) is (client != "onnx")
    loads = {name for name, one in made.clients.items() if "loads" in one}
    assert ("transformers" in loads) is (client == "transformers") and "open_clip" in loads
    assert "--for" in card


@pytest.mark.parametrize(
    "asked, message", [(["onyx"], "client 'onyx': .*onnx"), ([], f"none; allowed: {CLIENTS[0]}")]
)
def test_clients_that_are_none_are_refused(tmp_path: Path, asked: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(tmp_path, tmp_path / "model", clients=asked)


def test_mapped_weights_are_the_models_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    model = build(towers_section()).eval()
    write_model_files(model, tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    path = tmp_path / FolderFiles.OPEN_CLIP_WEIGHTS
    data = path.read_bytes()
    map_weights(model, tmp_path)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    moved = [name for name, tensor in after.items() if tensor.data_ptr() != places[name]]
    assert len(moved) == len(after)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert path.read_bytes() == data


def test_a_conversion_that_fails_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"half\.onnx: cannot be converted: "):
        convert_apart(
            "fp16",
            tmp_path / "half.onnx",
            tmp_path / "plain.onnx",
            np.zeros((0, 3, 1, 1), np.float32),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["plain.onnx"]
