"""A classifier whose classes do not exclude each other, exported, served and asked."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ptft.artifact import FolderFiles, read_model_info
from ptft.cli.main import app
from ptft.client import ServiceClient
from ptft.data import open_split
from ptft.data.checks.check import check_splits
from ptft.errors import ArtifactError
from ptft.export import export_model
from ptft.model import load_model
from ptft.onnx.golden import check_golden, read_golden
from ptft.onnx.model import OnnxModel
from ptft.pages.markdown import card_metadata
from ptft.recipe import FolderData
from ptft.verify import verify
from serving.settings import Settings
from tests.support.runs import recipe, run
from tests.support.served import served
from tests.support.several import SEVERAL


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and its model folder."""
    folder = tmp_path_factory.mktemp("several")
    run(folder / "run", **SEVERAL, early_stop=None)
    export_model(
        folder / "run", folder / "model", precisions=["fp32", "int8"], progress=lambda _: None
    )
    return folder / "run", folder / "model"


@pytest.fixture(scope="module")
def pictures(exported: tuple[Path, Path]) -> list[bytes]:
    samples = open_split(recipe(exported[0], **SEVERAL).data, "test")
    found = []
    for index in range(4):
        stream = io.BytesIO()
        samples[index].image.save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def wanted(folder: Path, picture: bytes) -> tuple[dict[str, float], set[str]]:
    """Probabilities and told classes, by the checkpoint in torch."""
    model = load_model(folder)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    pixels = model.spec.preprocess.normalise(model.spec.preprocess.pixels(image)[None])
    with torch.no_grad():
        likely = model.classify(torch.from_numpy(pixels)).double().sigmoid()[0].tolist()
    scores = dict(zip(model.spec.classes, likely, strict=True))
    pairs = zip(scores.items(), model.spec.thresholds or (), strict=True)
    return scores, {name for (name, one), least in pairs if one >= least}


def test_the_folder_has_the_thresholds_of_the_checkpoint(exported: tuple[Path, Path]) -> None:
    run_folder, folder = exported
    info, model = read_model_info(folder), load_model(run_folder)
    assert tuple(info.thresholds) == model.spec.thresholds
    assert load_model(folder).spec.thresholds == model.spec.thresholds
    card = (folder / FolderFiles.CARD).read_text()
    assert "Its classes do not exclude each other" in card and 'info["thresholds"]' in card
    results = card_metadata(card)["model-index"][0]["results"]
    figures = {one["task"]["name"]: [m["name"] for m in one["metrics"]] for one in results}
    assert figures["classify"] == ["map", "micro_f1", "macro_f1", "top1", "all_first"]
    assert figures["zero_shot"] == ["map", "top1", "all_first"]
    kinds = {one["name"]: one["type"] for one in results[0]["metrics"]}
    assert (kinds["map"], kinds["micro_f1"]) == ("mean_average_precision", "f1")


def test_onnxruntime_tells_what_the_checkpoint_does(
    exported: tuple[Path, Path], pictures: list[bytes]
) -> None:
    folder = exported[1]
    model = OnnxModel(folder, read_model_info(folder), "fp32", threads=1)
    check_golden(model, folder)
    for picture in pictures:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        pixels = model.preprocess.normalise(model.preprocess.pixels(image)[None])
        likely = model.head_probabilities(model.encode_images(pixels))[0]
        scores, told = wanted(exported[0], picture)
        np.testing.assert_allclose(likely, list(scores.values()), atol=1e-3)
        assert set(model.told(likely)) == told


@pytest.mark.parametrize("count", [0, 16])
def test_golden_answers_hold_the_thresholds(exported: tuple[Path, Path], count: int) -> None:
    """Whoever changes ptft.json makes its digest right again; the checkpoint's answers differ."""
    folder = exported[1]
    info = read_model_info(folder)
    thresholds = [0.5 if one != 0.5 else 0.4 for one in info.thresholds][:count]
    other = replace(info, thresholds=thresholds)
    with pytest.raises(ArtifactError, match="threshold"):
        check_golden(OnnxModel(folder, other, "fp32", threads=1), folder)


def test_what_is_told_is_held_but_near_a_threshold(exported: tuple[Path, Path]) -> None:
    golden = read_golden(exported[1])
    assert golden.class_thresholds is not None
    told = golden.class_probabilities >= golden.class_thresholds
    rows = [np.flatnonzero(row).tolist() for row in told]
    golden.check_told(rows, "fp32")
    beyond = np.abs(golden.class_probabilities - golden.class_thresholds)
    place, number = np.unravel_index(int(beyond.argmax()), beyond.shape)
    rows[place] = sorted({*rows[place]} ^ {int(number)})
    with pytest.raises(ArtifactError, match=rf"input {place}: class {number} is (not )?told"):
        golden.check_told(rows, "fp32")


def test_the_service_and_its_client_tell_them(
    exported: tuple[Path, Path], pictures: list[bytes]
) -> None:
    with served(Settings(model=exported[1], threads=1)) as url:
        with ServiceClient(url) as client:
            found = client.classify(pictures)
            few = client.classify(pictures[:1], top_k=2)
            about = client.model()
        links = verify([str(exported[1]), url])
    for one, picture in zip(found, pictures, strict=True):
        scores, told = wanted(exported[0], picture)
        assert one.labels is not None and set(one.labels) == told
        assert dict(one.classes) == pytest.approx(scores, abs=1e-3)  # every class
    assert (len(few[0].classes), few[0].labels) == (2, found[0].labels)
    assert about.thresholds == load_model(exported[0]).spec.thresholds
    assert {link.state for link in links if link.name == "golden service fp32"} == {"ok"}


def test_predict_writes_a_data_set(exported: tuple[Path, Path], tmp_path: Path) -> None:
    samples = open_split(recipe(exported[0], **SEVERAL).data, "test")
    (tmp_path / "photos").mkdir()
    for index in range(3):
        samples[index].image.save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    out, shown = tmp_path / "out", CliRunner()
    args = ["predict", str(exported[0]), str(tmp_path / "photos"), "--out", str(out)]
    result = shown.invoke(app, args)
    assert result.exit_code == 0 and "in 3 pictures, 1 left out" in result.stdout
    lines = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    for line in lines:
        _, told = wanted(exported[0], (tmp_path / "photos" / line["file_name"]).read_bytes())
        assert set(line["labels"]) == told and len(line["scores"]) == 16
    (out / "labels.jsonl").rename(tmp_path / "photos" / "metadata.jsonl")
    (tmp_path / "photos" / "broken.png").unlink()
    names = list(load_model(exported[0]).spec.classes)
    data = FolderData(train=str(tmp_path / "photos"), label="labels", labels="many", classes=names)
    again = open_split(data, "train")
    assert [set(again.label_names(label)) for label in again.labels()] == [  # type: ignore[union-attr]
        set(line["labels"]) for line in lines
    ]


def test_the_data_of_the_recipe_are_checked(exported: tuple[Path, Path]) -> None:
    checked, _ = check_splits(recipe(exported[0], **SEVERAL))
    assert {one.label for one in checked} == {"data.train", "data.val", "data.test"}
    train = next(one for one in checked if one.learned).survey
    assert train.counts is not None and sum(train.counts) > 2 * train.samples
