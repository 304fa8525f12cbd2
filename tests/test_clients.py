"""One pushed model folder serves every client: each pulls it from a Hub and embeds as ptft does."""

import json
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from ptft.model.detecting import query_embeddings
from ptft.preprocess.frame import frame_of
from tests.clients.environments import NODE, cache_folder, find
from tests.clients.harness import CLIENTS, ENVIRONMENTS, Bench, scenes
from tests.support.detectors import lively_detector
from tests.support.hub_parts import TOKEN
from tests.support.loopback_hub import LoopbackHub
from tests.support.torch_boxes import best_boxes

NAMES = (
    "clip",
    "dual",
    "pooled",
)  # the last of ``python -m tests.bench clients`` is too large for a test

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch, LoopbackHub(token=TOKEN) as hub:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield Bench(hub, tmp_path_factory.mktemp("clients"), NAMES, scenes())


def wrong(bench: Bench, environment: str | None, cache: Path) -> list[str]:
    """What the clients of an environment do not give as ptft does."""
    clients = [client for client in CLIENTS if client.environment == environment]
    assert clients, environment
    bench.run(clients, cache)
    found = []
    for client, name in product(clients, NAMES):
        if not bench.loads(client, name):
            continue
        figures = bench.figures(client, name)
        # JavaScript's own resize differs
        image = figures.image if environment != NODE or bench.prepares else None
        near = [cosine is None or cosine >= 0.9999 for cosine in (figures.text, image)]
        if figures.error or figures.same is None or figures.same > 1e-5 or not all(near):
            found.append(f"{client.label}, {name}: {figures}")
    return found


def test_open_clip_transformers_timm_and_onnxruntime(bench: Bench, tmp_path: Path) -> None:
    assert wrong(bench, None, tmp_path) == []


def test_who_loads_what(bench: Bench) -> None:
    """All load all, but for the class that transformers lacks: its ONNX files have no class."""
    lacking = {one.label for one in CLIENTS for name in NAMES if not bench.loads(one, name)}
    assert lacking == {one.label for one in CLIENTS if one.library == "transformers"}
    assert all(bench.loads(one, name) for one in CLIENTS for name in ("clip", "dual"))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_clients_of_other_environments(bench: Bench, environment: str) -> None:
    if find(environment, cache_folder()) is None:
        pytest.skip("its environment is not there; `make clients` makes it")
    assert wrong(bench, environment, cache_folder()) == []


def test_transformers_js_finds_what_the_checkpoint_finds(
    detector_folder: Path, tmp_path: Path
) -> None:
    """`pipeline("zero-shot-object-detection")` from the folder, on pictures of the model's size,
    which neither side resizes."""
    environment = find(NODE, cache_folder())
    if environment is None:
        pytest.skip("its environment is not there; `make clients` makes it")
    model, labels = lively_detector(), ["a red circle", "a blue square", "a star over a tree"]
    frame = frame_of((64, 64), (64, 64), "squash")
    pictures, wanted = [], []
    for number, picture in enumerate(scenes(2, 64)):
        picture = picture.resize((64, 64))
        pictures.append(tmp_path / f"{number}.png")
        picture.save(pictures[-1])
        images = torch.from_numpy(model.spec.preprocess(picture)[None])
        with torch.no_grad():
            answers = model.detect(images, query_embeddings(model, labels, ["{}"]))
        wanted.append(best_boxes(answers.logits[0], answers.boxes[0], frame, most=100))
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    script = Path(__file__).parent / "clients" / "transformers_js_boxes.mjs"
    words = ["node", script, environment, detector_folder, tmp_path / "labels.json", *pictures]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sum(map(len, told)) > 20
    for found, want in zip(told, wanted, strict=True):
        assert len(found) == int((want.scores > 0.02).sum())
        for row, one in enumerate(found):
            assert one["label"] == labels[want.labels[row]]
            assert one["score"] == pytest.approx(want.scores[row], abs=1e-4)
            sides = [one["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
            # whole pixels, which it leaves to reach beyond the picture
            assert np.clip(sides, 0, 64) == pytest.approx(want.corners[row], abs=1.0)
