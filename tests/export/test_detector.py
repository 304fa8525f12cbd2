"""The model folder of a detector: what each client finds with it is what the checkpoint finds."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from ptft.artifact import FolderFiles, GoldenKeys, hash_files, read_model_info, write_model_info
from ptft.errors import ArtifactError, ParityError
from ptft.export import library_files
from ptft.export.graph import write_graph
from ptft.export.library_files import write_library_files
from ptft.export.model_files import write_model_files
from ptft.export.owlvit import check_owlvit, convert_detector
from ptft.export.owlvit_onnx import write_owlvit_onnx
from ptft.export.parity import compare_places, make_golden
from ptft.export.quality import Quality
from ptft.export.towers import (
    Precisions,
    Written,
    detector_tower,
    expected_outputs,
    image_batches,
    towers_of,
)
from ptft.model import load_model
from ptft.model.detecting import prepare_detector, query_embeddings
from ptft.onnx.boxes import place_boxes, place_logits, place_query, surest_boxes
from ptft.onnx.check import check_onnx_file
from ptft.onnx.golden import check_golden, read_golden
from ptft.onnx.model import OnnxModel
from ptft.pages.markdown import card_metadata
from ptft.preprocess.frame import frame_of
from ptft.recipe import DetectObjective
from ptft.verify.answers import check_onnx, check_torch
from ptft.verify.drawn import check_drawn, new_input_draw
from tests.support import tiny
from tests.support.detectors import COUNTING, lively_detector
from tests.support.exported import python_blocks
from tests.support.torch_boxes import best_boxes

CLASSES = ["red circle", "blue square", "a star"]


def scene(width: int = 90, height: int = 60) -> Image.Image:
    """A picture that is no square."""
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def test_the_folder_knows_the_detector(detector_folder: Path) -> None:
    model, info = lively_detector(), read_model_info(detector_folder)
    assert (info.task, info.classes, info.templates) == (
        "detect",
        ["red circle", "blue square"],
        ["a {}"],
    )
    assert (info.nms, info.counting) == (COUNTING.nms, COUNTING.to_dict())
    assert {FolderFiles.DETECT_ONNX, FolderFiles.DETECTOR} <= set(info.files)
    assert info.clients["transformers"] == {"loads": "OwlViTForObjectDetection"}
    assert "loads" in info.clients["open_clip"] and "loads" in info.clients["timm"]
    again = load_model(detector_folder)
    assert again.detector is not None and again.detector.spec.counting == COUNTING
    state = model.state_dict()
    assert set(state) == set(again.state_dict())
    assert all(torch.equal(state[name], one) for name, one in again.state_dict().items())
    card = (detector_folder / FolderFiles.CARD).read_text()
    assert card_metadata(card)["pipeline_tag"] == "zero-shot-object-detection"
    assert "of 2 classes: red circle, blue square." in card


def test_onnx_finds_what_the_checkpoint_finds(detector_folder: Path) -> None:
    """With any batch, and with queries that the file knows nothing of."""
    model, info = lively_detector(), read_model_info(detector_folder)
    onnx = OnnxModel(detector_folder, info, "fp32", 1)
    pictures = [scene(), scene(40, 70), scene(64, 64)]
    images = np.stack([onnx.preprocess(picture) for picture in pictures])
    for count, names in ((1, CLASSES), (3, CLASSES[:1]), (2, CLASSES * 5)):
        rows = onnx.detect_places(images[:count])
        tokens = onnx.tokenizer([f"a {name}" for name in names])
        logits = place_logits(rows, onnx.encode_texts(list(tokens)))
        with torch.no_grad():
            wanted = model.detect(
                torch.from_numpy(images[:count]), query_embeddings(model, names, ["a {}"])
            )
        assert np.abs(logits - wanted.logits.numpy()).max() < 1e-4
        assert np.abs(place_boxes(rows) - wanted.boxes.numpy()).max() < 1e-5
        assert wanted.logits.std() > 0.05
        frame = frame_of(pictures[0].size, info.image_size, onnx.preprocess.resize_mode)
        for nms in (None, 0.3):
            found = surest_boxes(logits[0], place_boxes(rows)[0], frame, most=9, nms=nms)
            theirs = best_boxes(wanted.logits[0], wanted.boxes[0], frame, most=9, nms=nms)
            assert np.allclose(found.scores, theirs.scores, atol=1e-4)
            assert np.allclose(found.corners, theirs.corners, atol=1e-2)
            assert (found.labels == theirs.labels).all() and len(found.labels) > 1


def test_one_file_finds_what_transformers_finds(detector_folder: Path) -> None:
    """``onnx/model.onnx``, with another number of pictures and of texts than it was held with, some
    of them padded."""
    from transformers import OwlViTForObjectDetection

    theirs = OwlViTForObjectDetection.from_pretrained(detector_folder).eval()
    model = lively_detector()
    names = [*CLASSES, "a red star over a blue square"]
    tokens = model.spec.tokenizer.trim(model.spec.tokenizer(names))
    images = np.stack([model.spec.preprocess(one) for one in (scene(), scene(40, 70))])
    mask = np.ones_like(tokens)
    session = onnxruntime.InferenceSession(detector_folder / FolderFiles.OWLVIT_ONNX)
    inputs = {"input_ids": tokens, "attention_mask": mask, "pixel_values": images}
    logits, boxes = session.run(["logits", "pred_boxes"], inputs)
    with torch.no_grad():
        wanted = theirs(
            input_ids=torch.from_numpy(tokens).repeat(2, 1),
            attention_mask=torch.from_numpy(mask).repeat(2, 1),
            pixel_values=torch.from_numpy(images),
        )
    assert logits.shape == (2, 16, 4) and wanted.logits.std() > 0.05
    assert np.abs(logits - wanted.logits.numpy()).max() < 1e-4
    assert np.abs(boxes - wanted.pred_boxes.numpy()).max() < 1e-5
    card = (detector_folder / FolderFiles.CARD).read_text()
    assert "`onnx/model.onnx` gives the checkpoint's boxes and logits" in card


def test_the_one_file_is_held_against_the_golden_boxes(tmp_path: Path) -> None:
    model = lively_detector()
    golden = make_golden(model)
    write_model_files(model, tmp_path)
    for file, tower in towers_of(model).items():
        write_graph(tower, tmp_path / file)
    assert write_owlvit_onnx(model, golden, tmp_path) < 1e-4
    assert golden.detect_boxes is not None
    wrong = replace(golden, detect_boxes=golden.detect_boxes + np.float32(0.01))
    with pytest.raises(ParityError, match="boxes or logits differ"):
        write_owlvit_onnx(model, wrong, tmp_path)


def test_what_is_unlikely_or_not_finite_is_not_told() -> None:
    frame = frame_of((200, 100), (64, 64), "squash")
    logits = np.array([[2.0, -3.0], [1.0, -2.0], [-1.0, 0.5]], np.float32)
    boxes = np.array(
        [[0.5, 0.5, 0.2, 0.2], [0.51, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], np.float32
    )
    found = surest_boxes(logits, boxes, frame, most=4)
    assert found.labels.tolist() == [0, 0, 1, 0]
    assert found.corners[0].tolist() == pytest.approx([80, 40, 120, 60])
    assert surest_boxes(logits, boxes, frame, most=4, nms=0.5).labels.tolist() == [0, 1, 0, 1]
    assert len(surest_boxes(logits, boxes, frame, threshold=0.6).labels) == 3
    assert len(surest_boxes(logits[:, :0], boxes, frame).labels) == 0
    with pytest.raises(Exception, match="not finite"):
        surest_boxes(logits * np.float32("nan"), boxes, frame)


def test_a_picture_as_a_query_is_that_of_transformers(detector_folder: Path) -> None:
    from transformers import OwlViTForObjectDetection

    theirs = OwlViTForObjectDetection.from_pretrained(detector_folder).eval()
    onnx = OnnxModel(detector_folder, read_model_info(detector_folder), "fp32", 1)
    images = np.stack([onnx.preprocess(scene()), onnx.preprocess(scene(30, 50))])
    with torch.no_grad():
        features, _ = theirs.image_embedder(torch.from_numpy(images))
        flat = features.flatten(1, 2)
        wanted, _, _ = theirs.embed_image_query(flat, features)
    rows = onnx.detect_places(images)
    for row, want in zip(rows, wanted.numpy(), strict=True):
        assert np.abs(place_query(row) - want.reshape(-1)).max() < 1e-4


def test_the_pipeline_of_transformers_answers_from_the_folder(
    detector_folder: Path, tmp_path: Path
) -> None:
    """The card's own lines, on a picture; and its processor is OWL-ViT's."""
    from transformers import AutoProcessor, pipeline

    finder = pipeline("zero-shot-object-detection", str(detector_folder))
    labels = [f"a {name}" for name in CLASSES]
    answer = finder(scene(), candidate_labels=labels, threshold=0.0, top_k=5)
    assert type(finder.image_processor).__name__.startswith("OwlViTImageProcessor")
    onnx = OnnxModel(detector_folder, read_model_info(detector_folder), "fp32", 1)
    rows = onnx.detect_places([onnx.preprocess(scene())])
    logits = place_logits(rows[0], onnx.encode_texts(list(onnx.tokenizer(labels))))
    frame = frame_of((90, 60), (64, 64), "squash")
    found = surest_boxes(logits, place_boxes(rows[0]), frame, most=5)
    assert [one["label"] for one in answer] == [labels[n] for n in found.labels]
    for one, score, corners in zip(answer, found.scores, found.corners, strict=True):
        assert abs(one["score"] - score) < 5e-3  # torchvision resizes a little otherwise
        box = [one["box"][key] for key in ("xmin", "ymin", "xmax", "ymax")]
        inside = np.clip(box, 0, [90, 60, 90, 60])
        assert np.abs(inside - corners).max() < 1.5  # whole pixels
    assert AutoProcessor.from_pretrained(detector_folder) is not None


@pytest.mark.parametrize("library", ["transformers", "onnxruntime"])
def test_the_commands_of_the_card_run(library: str, detector_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(detector_folder, copy)
    scene().save(copy / "picture.jpg")
    code = python_blocks((copy / FolderFiles.CARD).read_text())[library]
    code = code.replace("threshold=0.1", "threshold=0.0")
    prepare = "from ptft.compat import prepare_torchvision\nprepare_torchvision()\n"
    done = subprocess.run(
        [sys.executable, "-c", prepare + code],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"0\.\d{3}", done.stdout)


def test_verify_holds_golden_boxes(detector_folder: Path, tmp_path: Path) -> None:
    info = read_model_info(detector_folder)
    place = str(detector_folder)
    links = [
        *check_onnx(place, detector_folder, info),
        check_torch(place, detector_folder),
        *check_drawn(place, detector_folder, info, new_input_draw(1, None)),
    ]
    assert {link.name: link.detail for link in links if link.state != "ok"} == {}
    assert all(GoldenKeys.DETECT_BOXES in link.detail for link in links[:2])
    assert "golden onnx fp32" in [link.name for link in links]
    spoilt = tmp_path / "model"
    shutil.copytree(detector_folder, spoilt)
    golden = load_file(spoilt / FolderFiles.GOLDEN)
    golden[GoldenKeys.DETECT_BOXES] = golden[GoldenKeys.DETECT_BOXES] + np.float32(0.01)
    texts = json.dumps(list(read_golden(detector_folder).texts))
    save_file(golden, spoilt / FolderFiles.GOLDEN, metadata={GoldenKeys.TEXTS: texts})
    info = replace(info, files=hash_files(spoilt))
    write_model_info(spoilt, info)
    with pytest.raises(ArtifactError, match="detect_boxes differs by 1"):
        check_golden(OnnxModel(spoilt, info, "fp32", 1), spoilt)
    del golden[GoldenKeys.DETECT_BOXES], golden[GoldenKeys.DETECT_LOGITS]
    save_file(golden, spoilt / FolderFiles.GOLDEN, metadata={GoldenKeys.TEXTS: texts})
    with pytest.raises(ArtifactError, match="no golden boxes"):
        check_golden(OnnxModel(spoilt, info, "fp32", 1), spoilt)


def test_a_detector_that_owlvit_does_not_compute_leaves_that_client_out(tmp_path: Path) -> None:
    """A convolutional tower; and one whose weights transformers would read otherwise."""
    model = tiny.build(tiny.arch_section("tiny-convnext"))
    prepare_detector(model, DetectObjective(width=16), ["cat"], seed=0)
    model.eval()
    write_model_files(model, tmp_path)
    golden = make_golden(model)
    found = write_library_files(model, golden, tmp_path)
    assert found["transformers"].loads is None
    assert found["transformers"].reason == "its places are feature maps, not patches"
    assert not (tmp_path / FolderFiles.TRANSFORMERS_WEIGHTS).exists()
    tower, batches = detector_tower(model), image_batches(model)
    expected = expected_outputs(tower, batches)
    write_graph(tower, tmp_path / FolderFiles.DETECT_ONNX)
    check_onnx_file(tmp_path / FolderFiles.DETECT_ONNX)
    session = onnxruntime.InferenceSession(tmp_path / FolderFiles.DETECT_ONNX)
    rows = session.run(None, {"pixel_values": batches["two"]})[0]
    assert compare_places(rows, expected["two"], "it")[0] < 1e-4


def test_boxes_that_transformers_gives_otherwise_are_an_error() -> None:
    from transformers import OwlViTConfig, OwlViTForObjectDetection

    model = lively_detector()
    golden = make_golden(model)
    converted = convert_detector(model)
    assert not isinstance(converted, str)
    theirs = OwlViTForObjectDetection(OwlViTConfig(**converted.config)).eval()
    theirs.load_state_dict(converted.state)
    assert check_owlvit(theirs, model, golden, library_files.LIBRARY_TOLERANCE) < 1e-5
    with torch.no_grad():
        theirs.box_head.dense2.bias[0] += 0.01
    with pytest.raises(ParityError, match="boxes differ"):
        check_owlvit(theirs, model, golden, library_files.LIBRARY_TOLERANCE)


def test_eight_bits_of_a_detector_are_kept_only_where_map_is_measured(
    detector_folder: Path, tmp_path: Path
) -> None:
    model, file = lively_detector(), FolderFiles.DETECT_ONNX
    (tmp_path / "onnx").mkdir()
    shutil.copy(detector_folder / file, tmp_path / file)
    batches, tower = image_batches(model), detector_tower(model)
    made = Precisions(tmp_path, file, tower, batches, Quality(model, None), 100, batches["five"])
    name = "onnx/detector_model_quantized.onnx"
    written = Written()
    made.write(["fp32", "int8"], written, lambda _: None)
    assert list(written.parity) == [file] and not (tmp_path / name).exists()
    reason = written.left_out[name]
    assert "its mAP is not measured: no recipe is recorded" in reason or "places differ" in reason
