"""Files that are swapped while they are held, opened and run: what was verified is used."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ptft.artifact import FolderFiles, verify_files
from ptft.checkpoint import TrainProgress, load_checkpoint, save_checkpoint
from ptft.errors import CheckpointError, DigestError
from ptft.files.digests import check_digests
from ptft.gate.answering import FolderAnswers
from ptft.index import IndexInfo, read_picture_index, write_picture_index
from ptft.index.build import index_pictures
from ptft.model import DualEncoder
from ptft.verify import verify
from ptft.verify.answers import check_onnx
from tests.support import tiny

DIGEST = f"sha256:{64 * 'a'}"
CHANGED = "changed between the check of its bytes and their use"


@pytest.fixture
def folder(classifier_folder: Path, tmp_path: Path) -> Path:
    """A copy of a model folder, to be changed."""
    return Path(shutil.copytree(classifier_folder, tmp_path / "model"))


def swap(path: Path) -> None:
    """The same bytes in another file: nothing but its inode and times tells them apart."""
    beside = path.with_name("beside")
    shutil.copyfile(path, beside)
    beside.replace(path)


def swapping(
    monkeypatch: pytest.MonkeyPatch, name: str, work: Callable[..., Any], path: Path
) -> None:
    """After this function has run, another file lies there."""

    def then(*arguments: Any, **options: Any) -> Any:
        found = work(*arguments, **options)
        swap(path)
        return found

    monkeypatch.setattr(name, then)


def test_the_gate_answers_with_what_it_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / FolderFiles.TEXT_ONNX
    swapping(monkeypatch, "ptft.gate.answering.verify_files", verify_files, path)
    with pytest.raises(DigestError, match=rf"text_model\.onnx: {CHANGED}"):
        FolderAnswers(folder, "fp32", 1)


def test_an_index_is_made_with_what_was_held(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "a.png")
    path = folder / FolderFiles.VISION_ONNX
    swapping(monkeypatch, "ptft.index.build.verify_files", verify_files, path)
    with pytest.raises(DigestError, match=rf"vision_model\.onnx: {CHANGED}"):
        index_pictures(folder, tmp_path / "pictures", tmp_path / "index")


def write(folder: Path) -> Path:
    """An index of three rows, with thumbnails."""
    info = IndexInfo("birds", DIGEST, "fp32", 3, 3)
    rows = np.eye(3, dtype=np.float32)
    write_picture_index(folder, info, rows, ["a", "b", "c"], [b"a", b"b", b"c"])
    return folder


def test_an_index_is_what_was_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write(tmp_path / "index")
    index = read_picture_index(place, digest=DIGEST, precision="fp32")
    (place / "thumbnails.bin").unlink()
    (place / "thumbnails.bin").symlink_to("rows.jsonl")
    assert index.thumbnail(2) == b"c"  # of the file that was opened
    place = write(tmp_path / "another")
    path = place / "rows.jsonl"
    swapping(monkeypatch, "ptft.index.files.check_digests", check_digests, path)
    with pytest.raises(DigestError, match=rf"rows\.jsonl: {CHANGED}"):
        read_picture_index(place, digest=DIGEST, precision="fp32")


def optimizer_of(model: DualEncoder) -> torch.optim.Optimizer:
    named = list(model.named_parameters())
    group = {"params": [one for _, one in named], "names": [name for name, _ in named]}
    return torch.optim.AdamW([group], lr=0.01)


def test_a_run_goes_on_with_what_was_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build(tiny.arch_section())
    path = save_checkpoint(tmp_path, model, optimizer_of(model), TrainProgress(step=7))
    name = "ptft.checkpoint.folder.verify_files"
    swapping(monkeypatch, name, verify_files, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {CHANGED}"):
        load_checkpoint(path, model, optimizer_of(model))


def test_verify_says_nothing_of_files_that_it_did_not_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / FolderFiles.VISION_ONNX
    swapping(monkeypatch, "ptft.verify.folder.check_onnx", check_onnx, path)
    found = [one for one in verify([str(folder)], torch=False) if one.state == "broken"]
    assert [(one.name, CHANGED in one.detail) for one in found] == [("files", True)]
