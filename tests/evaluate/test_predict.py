"""``ptft predict``: boxes as COCO's JSON and as pictures; what cannot be read fails alone."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.data.boxes.coco import read_coco
from ptft.errors import ModelError, UsageError
from ptft.evaluate.predict import BoxQuery, named_pictures, predict_boxes
from ptft.model import save_model
from ptft.model.detecting import query_embeddings
from ptft.onnx.counting import Counting
from ptft.preprocess.frame import frame_of
from tests.support.detectors import lively_detector, tiny_detector
from tests.support.torch_boxes import best_boxes


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, one that EXIF turns, and one that is none."""
    place = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(7)
    small = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)) for _ in range(2)]
    small[0].resize((120, 80), Image.Resampling.BICUBIC).save(place / "one.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    (place / "more").mkdir()
    turned = small[1].resize((120, 80), Image.Resampling.BICUBIC)
    turned.save(place / "more" / "two.jpg", exif=exif)
    (place / "bad.png").write_bytes(b"no picture")
    return place


def test_the_boxes_are_those_of_the_model(photos: Path) -> None:
    model = lively_detector()
    pictures = named_pictures([photos / "one.png"])
    texts = ["a cat", "red circle"]
    wanted = BoxQuery(texts, ["the {}"], threshold=0.2, most=6, nms=0.6)
    values, skipped = predict_boxes(model, pictures, wanted)
    assert skipped == 0 and values["images"][0]["width"] == 120
    assert values["categories"] == [{"id": 1, "name": "a cat"}, {"id": 2, "name": "red circle"}]
    preprocess = model.spec.preprocess
    picture = Image.fromarray(pixels(photos / "one.png").astype(np.uint8))
    with torch.no_grad():
        queries = query_embeddings(model, texts, ["the {}"])
        answer = model.detect(torch.from_numpy(preprocess(picture)[None]), queries)
    frame = frame_of((120, 80), preprocess.size, preprocess.resize_mode)
    found = best_boxes(answer.logits[0], answer.boxes[0], frame, most=6, nms=0.6, threshold=0.2)
    assert len(found.labels) == len(values["annotations"]) > 1
    for one, corners, label in zip(values["annotations"], found.corners, found.labels, strict=True):
        left, top, width, height = one["bbox"]
        assert np.allclose([left, top, left + width, top + height], corners, atol=0.02)
        assert one["category_id"] == label + 1


def test_the_command_writes_json_and_pictures_and_counts_what_it_left_out(
    photos: Path, tmp_path: Path
) -> None:
    save_model(lively_detector(), tmp_path / "model")
    words = ["predict", str(tmp_path / "model"), str(photos), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--threshold", "0", "--most", "5"])
    assert done.exit_code == 0, done.output
    assert "10 boxes in 2 pictures, 1 left out" in done.output
    values = json.loads((tmp_path / "out" / "boxes.json").read_text())
    assert [one["file_name"] for one in values["images"]] == ["more/two.jpg", "one.png"]
    assert (values["images"][0]["width"], values["images"][0]["height"]) == (80, 120)
    assert [one["name"] for one in values["categories"]] == ["red circle", "blue square"]
    drawn = tmp_path / "out" / "pictures"
    assert pixels(drawn / "more" / "two.jpg.jpg").shape == (120, 80, 3)
    plain, marked = pixels(photos / "one.png"), pixels(drawn / "one.png.jpg")
    assert np.abs(plain - marked).max() > 60
    annotated = read_coco(tmp_path / "out" / "boxes.json", photos)
    assert len(annotated.entries) == 2, "a set that ptft trains on"
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, UsageError) and "is there" in str(again.exception)


def test_counts_are_by_what_training_chose(photos: Path, tmp_path: Path) -> None:
    model = lively_detector()
    assert model.detector is not None
    every, _ = predict_boxes(model, named_pictures([photos / "one.png"]), BoxQuery(threshold=0.0))
    scores = sorted(one["score"] for one in every["annotations"] if one["category_id"] == 1)
    middle = scores[len(scores) // 2]
    counting = Counting((middle - 1e-4, 0.999999), None)
    model.detector.spec = replace(model.detector.spec, counting=counting)
    model.set_detector(model.detector)
    save_model(model, tmp_path / "model")
    words = ["predict", str(tmp_path / "model"), str(photos), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--count"])
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "out" / "counts.csv").read_text().splitlines()
    assert lines[0] == "file_name,red circle,blue square"
    assert lines[2] == f"one.png,{sum(score >= middle - 1e-4 for score in scores)},0"
    assert lines[1].startswith("more/two.jpg,") and len(lines) == 3
    values = json.loads((tmp_path / "out" / "boxes.json").read_text())
    assert len(values["annotations"]) == sum(
        int(count) for line in lines[1:] for count in line.split(",")[1:]
    )


@pytest.mark.parametrize("options", [["--threshold", "0.3"], ["--nms", "0.5"], ["--texts", "a"]])
def test_what_counting_would_not_read_is_refused(
    photos: Path, tmp_path: Path, options: list[str]
) -> None:
    words = ["predict", "model", str(photos), "--out", str(tmp_path / "out"), "--count"]
    done = CliRunner().invoke(app, [*words, *options])
    assert isinstance(done.exception, UsageError) and "--count" in str(done.exception)


def test_a_detector_that_chose_nothing_does_not_count(photos: Path) -> None:
    model, pictures = tiny_detector().eval(), named_pictures([photos / "one.png"])
    with pytest.raises(ModelError, match=r"--count: its training chose nothing"):
        predict_boxes(model, pictures, BoxQuery(count=True))
    with pytest.raises(UsageError, match="of the model's own classes"):
        predict_boxes(model, pictures, BoxQuery(["a"], count=True))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_pipe_among_pictures_is_left_out_and_not_waited_for(photos: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    pictures = {**named_pictures([photos / "one.png"]), **named_pictures([tmp_path])}
    values, skipped = predict_boxes(tiny_detector().eval(), pictures, BoxQuery())
    assert [one["file_name"] for one in values["images"]] == ["one.png"] and skipped == 1


def test_what_is_no_detector_or_no_picture_is_refused(photos: Path, tmp_path: Path) -> None:
    model = tiny_detector().eval()
    with pytest.raises(UsageError, match="no picture that can be read"):
        predict_boxes(model, named_pictures([photos / "bad.png"]), BoxQuery())
    with pytest.raises(UsageError, match="lacks"):
        predict_boxes(model, {}, BoxQuery(templates=["a"]))
    model.drop_detector()
    with pytest.raises(ModelError, match="needs a detector"):
        predict_boxes(model, {}, BoxQuery())
    with pytest.raises(UsageError, match="no such picture"):
        named_pictures([tmp_path / "none.png"])
    with pytest.raises(UsageError, match="no picture in it"):
        named_pictures([tmp_path])
    (tmp_path / "one.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"named one\.png is among them"):
        named_pictures([photos, tmp_path])


def test_the_nms_is_the_models_unless_another_is_asked_for(photos: Path) -> None:
    model, pictures = lively_detector(), named_pictures([photos / "one.png"])
    assert model.detector is not None

    def told(**spec: object) -> int:
        assert model.detector is not None
        model.detector.spec = replace(model.detector.spec, **spec)
        return len(predict_boxes(model, pictures, asked)[0]["annotations"])

    asked = BoxQuery(threshold=0.0, nms=0.01)
    few = told()
    asked = BoxQuery(threshold=0.0, nms=1.0)
    every = told(nms=0.01)
    asked = BoxQuery(threshold=0.0)
    assert few < every == told(nms=None) == told(nms=0.01, counting=Counting((0.5, 0.5), 1.0))
    assert few == told(nms=None, counting=Counting((0.5, 0.5), 0.01))
    assert few == told(nms=0.01, counting=Counting((0.5, 0.5), None))  # none that is better
