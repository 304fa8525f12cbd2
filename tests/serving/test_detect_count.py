"""``/v1/detect``: the NMS of the model folder, and what the checkpoint itself counts."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import read_json, read_model_info, write_json, write_model_info
from ptft.client.answers import read_found_boxes, read_model
from ptft.client.questions import box_options
from ptft.errors import ArtifactError
from ptft.evaluate.predict import BoxQuery, count_table, predict_boxes
from ptft.model import load_model
from serving.routes import create_app
from serving.settings import Settings
from tests.serving.server import wait_until_ready
from tests.support.detectors import COUNTING

SIZES = [(90, 60), (50, 80), (64, 64)]


@pytest.fixture
def asking(detector_client: TestClient) -> TestClient:
    return detector_client


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PNGs of coarse noise, of different shapes."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(3)
    for number, size in enumerate(SIZES):
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def files(scenes: dict[str, Path]) -> list[tuple[str, bytes]]:
    return [("images", path.read_bytes()) for path in scenes.values()]


def by_the_checkpoint(
    folder: Path, scenes: dict[str, Path], query: BoxQuery
) -> tuple[list[list[tuple[float, ...]]], list[str]]:
    """Of each picture the boxes that ``ptft predict`` tells, and the lines of its table."""
    values, skipped = predict_boxes(load_model(folder), scenes, query)
    assert not skipped
    found: list[list[tuple[float, ...]]] = [[] for _ in scenes]
    for one in values["annotations"]:
        left, top, width, height = one["bbox"]
        box = (left, top, left + width, top + height)
        found[one["image_id"] - 1].append((one["category_id"] - 1, one["score"], *box))
    return found, count_table(values).splitlines()[1:]


def by_the_service(answer: dict, classes: list[str]) -> list[list[tuple[float, ...]]]:
    return [
        [(classes.index(box["label"]), box["score"], *box["box"]) for box in one["boxes"]]
        for one in answer["results"]
    ]


def hold(mine: list[list[tuple[float, ...]]], theirs: list[list[tuple[float, ...]]]) -> None:
    assert [len(one) for one in mine] == [len(one) for one in theirs]
    for one, other in zip(mine, theirs, strict=True):
        labels, scores, *corners = np.array(one).T
        other_labels, other_scores, *other_corners = np.array(other).T
        assert labels.tolist() == other_labels.tolist()
        np.testing.assert_allclose(scores, other_scores, atol=1e-4)
        np.testing.assert_allclose(corners, other_corners, atol=2e-2)


def test_counts_and_boxes_are_those_of_the_checkpoint(
    asking: TestClient, detector_folder: Path, scenes: dict[str, Path], files: list
) -> None:
    answer = asking.post("/v1/detect", files=files, data={"count": "true"}).json()
    told, table = by_the_checkpoint(detector_folder, scenes, BoxQuery(count=True))
    classes = read_model_info(detector_folder).classes
    hold(by_the_service(answer, classes), told)
    lines = [
        ",".join([name, *(str(one["counts"][label]) for label in classes)])
        for name, one in zip(scenes, answer["results"], strict=True)
    ]
    assert lines == table
    every = asking.post("/v1/detect", files=files, data={"threshold": "0.1", "nms": "1"}).json()
    assert sum(map(len, by_the_service(every, classes))) > sum(map(len, told))
    raw = {"content": files[0][1], "headers": {"content-type": "image/png"}}
    (one,) = asking.post("/v1/detect?count=true", **raw).json()["results"]
    assert one["counts"] == answer["results"][0]["counts"]
    read = read_found_boxes([(range(len(files)), answer)], len(files))
    assert [one.counts for one in read] == [one["counts"] for one in answer["results"]]


def test_the_nms_is_the_folders_unless_another_is_asked_for(
    asking: TestClient, detector_folder: Path, scenes: dict[str, Path], files: list
) -> None:
    classes = read_model_info(detector_folder).classes
    counts = []
    for said, nms in (({}, None), ({"nms": "1"}, 1.0), ({"nms": "0.01"}, 0.01)):
        form = {"threshold": "0.01", "most": "100", **said}
        answer = asking.post("/v1/detect", files=files, data=form).json()
        query = BoxQuery(threshold=0.01, nms=nms)
        told, _ = by_the_checkpoint(detector_folder, scenes, query)
        hold(by_the_service(answer, classes), told)
        counts.append(sum(map(len, told)))
        assert all("counts" not in one for one in answer["results"])
    assert counts[1] > counts[0] > counts[2], "each of them leaves out others"
    about = read_model(asking.get("/v1/model").json())
    assert (about.nms, about.counts) == (COUNTING.nms, True)


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ({"threshold": 0.3}, "threshold"),
        ({"most": 5}, "most"),
        ({"nms": 1}, "nms"),
        ({"labels": ["a cat"]}, "labels"),
        ({"templates": ["{}"]}, "templates"),
    ],
)
def test_what_counting_would_pass_over_is_refused(
    asking: TestClient, files: list, said: dict, about: str
) -> None:
    answer = asking.post("/v1/detect", files=files, data={"count": "true", **said})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, about)
    examples = [*files, ("examples", files[0][1])]
    answer = asking.post("/v1/detect", files=examples, data={"count": "true"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "examples")


def test_a_model_that_chose_nothing_to_count_by_says_so(
    detector_folder: Path, tmp_path: Path, files: list
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(detector_folder, folder)
    write_model_info(folder, replace(read_model_info(folder), counting=None))
    with TestClient(create_app(lambda: Settings(model=folder))) as asking:
        wait_until_ready(asking)
        answer = asking.post("/v1/detect", files=files, data={"count": "true"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "no_count")
        assert asking.get("/v1/model").json()["counts"] is False


def test_the_client_says_nothing_of_counting_to_older_services() -> None:
    assert "count" not in box_options(0.1, 100, None, count=False)
    assert box_options(0.1, 100, None, count=True)["count"] is True


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nms", 2),
        ("nms", "a"),
        ("counting", {"thresholds": [0.5], "nms": None}),
        ("counting", {"thresholds": [0.5, 1.0], "nms": None}),
        ("counting", {"thresholds": [0.5, 0.5], "nms": 2}),
        ("counting", {"thresholds": [0.5, 0.5]}),
        ("counting", [0.5, 0.5]),
    ],
)
def test_a_record_that_does_not_fit_is_named(
    detector_folder: Path, tmp_path: Path, key: str, value: object
) -> None:
    write_model_info(tmp_path, read_model_info(detector_folder))
    values = read_json(tmp_path / "ptft.json")
    write_json(tmp_path / "ptft.json", {**values, key: value})
    with pytest.raises(ArtifactError, match=rf"ptft\.json: {key}"):
        read_model_info(tmp_path)


def test_a_record_from_before_keeps_its_digest(detector_folder: Path, tmp_path: Path) -> None:
    info = replace(read_model_info(detector_folder), nms=None, counting=None)
    write_model_info(tmp_path, info)
    assert not {"nms", "counting"} & set(read_json(tmp_path / "ptft.json"))
    assert info.digest != read_model_info(detector_folder).digest
    assert read_model_info(tmp_path) == info
