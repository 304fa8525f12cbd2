"""How far traffic has moved: the sums of the last hour, and what the service says of them."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import FolderFiles
from ptft.errors import DigestError, SampleError
from ptft.sketch import Sketches, make_sketch
from serving.drift import JUDGED, WINDOW_S, Drift
from serving.model import verify_model
from serving.settings import Settings
from tests.serving.conftest import Client, grey

CLASSES = 3


def unit(count: int, seed: int, shift: float = 0.0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, 8)) + shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_sums_are_those_of_the_last_hour_and_of_nothing_else() -> None:
    now = 1000.0
    sketch = make_sketch(unit(100, 0), unit(400, 1))
    assert sketch is not None
    drift = Drift(Sketches(image=sketch), clock=lambda: now)
    (found,) = drift.read()
    assert (found.items, found.value, found.moved) == (0, None, None)

    drift.observe("image", list(unit(JUDGED, 2, shift=1.0)))
    drift.observe("image", [SampleError("no picture")])
    drift.observe("text", list(unit(9, 3)))  # there is no sketch of texts
    (found,) = drift.read()
    assert (found.kind, found.items, found.moved) == ("image", JUDGED, True)

    now += WINDOW_S / 2
    drift.observe("image", list(unit(2 * JUDGED, 4)))
    (found,) = drift.read()
    both = np.concatenate([unit(JUDGED, 2, shift=1.0), unit(2 * JUDGED, 4)])
    wanted = sketch.distance(sketch.featured(both).sum(axis=0), len(both))
    assert found.items == len(both)
    assert found.value == pytest.approx(wanted, abs=1e-12)

    now += WINDOW_S / 2 + 1  # what moved is more than an hour ago
    (found,) = drift.read()
    assert (found.items, found.moved) == (2 * JUDGED, False)
    now += WINDOW_S
    (found,) = drift.read()
    assert found.items == 0


def test_few_items_are_not_judged() -> None:
    drift = Drift(Sketches(image=make_sketch(unit(100, 0), unit(400, 1))))
    drift.observe("image", list(unit(JUDGED - 1, 2, shift=5.0)))
    (found,) = drift.read()
    assert found.high is not None and found.value is not None
    assert found.value > found.high and found.moved is None


def ask(asking: TestClient, pixels: NDArray[np.uint8], png: Callable[..., bytes], **form: object):
    for start in range(0, len(pixels), 50):
        files = [("images", png(one)) for one in pixels[start : start + 50]]
        answer = asking.post("/v1/classify", files=files, data=form)
        assert answer.status_code == 200


@pytest.fixture(scope="module")
def png() -> Callable[[NDArray[np.uint8]], bytes]:
    def write(pixels: NDArray[np.uint8]) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    return write


def test_pictures_of_another_kind_are_seen_and_of_the_same_are_not(
    client: Client, sketched: Path, png: Callable[..., bytes]
) -> None:
    with client(model=sketched) as asking:
        ask(asking, grey(250, 2, light=180), png)
        found = asking.get("/v1/drift").json()
        kinds = {one["kind"]: one for one in found["kinds"]}
        assert found["reason"] == ""
        assert set(kinds) == {"image", "confidence"}
        for one in kinds.values():
            assert (one["items"], one["moved"]) == (250, False)
        shares = {one["label"]: one["share"] for one in found["classes"]}
        assert len(shares) == CLASSES and sum(shares.values()) == pytest.approx(1)
        assert 'ptft_drift_moved{kind="image"} 0.0' in asking.get("/metrics").text

        ask(asking, grey(250, 3, light=60), png)
        found = asking.get("/v1/drift").json()["kinds"][0]
        assert (found["kind"], found["items"], found["moved"]) == ("image", 500, True)
        lines = asking.get("/metrics").text.splitlines()
        assert 'ptft_drift_moved{kind="image"} 1.0' in lines
        assert 'ptft_drift_items{kind="image"} 500.0' in lines
        (bound,) = [
            one for one in lines if one.startswith('ptft_drift_bound{kind="image",side="high"}')
        ]
        assert float(bound.split()[-1]) == pytest.approx(found["high"])


def test_labels_of_a_request_are_no_classes_of_the_models_own(
    client: Client, sketched: Path, png: Callable[..., bytes]
) -> None:
    with client(model=sketched) as asking:
        ask(asking, grey(5, 2, light=180), png, labels=["light", "dark"])
        items = {one["kind"]: one["items"] for one in asking.get("/v1/drift").json()["kinds"]}
        assert items == {"image": 5, "confidence": 0}


def test_without_a_sketch_it_says_so(plain_client: TestClient) -> None:
    found = plain_client.get("/v1/drift").json()
    assert (found["kinds"], found["classes"]) == ([], [])
    assert FolderFiles.SKETCH in found["reason"]


def test_another_sketch_than_the_recorded_one_is_refused(sketched: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(sketched, copy)
    verify_model(Settings(model=copy))
    with (copy / FolderFiles.SKETCH).open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(DigestError, match=FolderFiles.SKETCH):
        verify_model(Settings(model=copy))
