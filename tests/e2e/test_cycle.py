"""The continual cycle on scenes: data comes in, a CronJob trains, gates, pushes; the tag is served.
Labels that are wrong do not get so far.

PTFT_E2E_TRAIN_IMAGE names the image that trains (``--target train``), PTFT_E2E_HOST an address of
this machine that pods reach, where the Hub runs.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptft.api import export, train
from ptft.hub import push_model
from tests.e2e.cluster import Cluster, until
from tests.e2e.conftest import kept_place
from tests.e2e.figures import record
from tests.e2e.scenes import write_scenes
from tests.support.loopback_hub import LoopbackHub

REPO, TOKEN = "org/scenes", "hf_writes"
RECIPE = {
    "name": "nightly",
    "data": {"kind": "folder", "train": "/data/new"},
    "objective": {"kind": "clip"},
    "optim": {"lr": 1e-3, "global_batch": 256, "samples_seen": 8192, "precision": "fp32"},
    "run": {"threads": 1, "page": False},
}
GATE = ["--probe=/data/probe", "--drop=i2t_recall@1=0.05", "--live=http://ptft"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows shaded scenes."""
    place = kept_place(tmp_path_factory) / "scenes"
    if not (place / "model").is_dir():
        overrides = {"optim.samples_seen": 20480, "run.dir": str(place / "run"), "run.threads": 1}
        train("pretrain/scenes", **overrides)
        export(place / "run", place / "model", name="scenes", precisions=())
    return place / "model"


@pytest.fixture(scope="module")
def hub(start: Path) -> Iterator[LoopbackHub]:
    """With the start as v1."""
    host = os.environ.get("PTFT_E2E_HOST")
    if host is None:
        pytest.skip("PTFT_E2E_HOST is not set: pods reach no address of this machine")
    with LoopbackHub(token=TOKEN, host=host) as running:
        push_model(start, REPO, tag="v1", licence="mit", endpoint=running.url, token=TOKEN)
        yield running


def tags(hub: LoopbackHub) -> list[str]:
    """Of the repository, the newest last."""
    names = [name.removeprefix("refs/tags/") for name in hub.repos[REPO].refs]
    return sorted(name for name in names if name.startswith("auto-"))


def nightly(cluster: Cluster, name: str) -> dict[str, Any]:
    """Start what the CronJob would, and wait for its end; its status."""
    cluster.kubectl("create", "job", name, "--from=cronjob/ptft-train")
    return cluster.ended(name, 900)


def cycling(values: dict[str, Any], hub: LoopbackHub, revision: str) -> dict[str, Any]:
    """The release that serves a revision, and trains from it."""
    image = os.environ.get("PTFT_E2E_TRAIN_IMAGE")
    if image is None:
        pytest.skip("PTFT_E2E_TRAIN_IMAGE is not set: no image trains")
    repository, _, tag = image.rpartition(":")
    quiet = [{"name": "HF_HUB_DISABLE_XET", "value": "1"}]
    from_hub = {"repo": REPO, "revision": revision, "endpoint": hub.url, "extraEnv": quiet}
    from_hub |= {"tokenSecret": {"name": "writer", "key": "HF_TOKEN"}}
    small = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "4Gi"}}
    jobs = {
        "enabled": True,
        "schedule": "0 3 1 1 *",  # not now: the test starts it
        "image": {"repository": repository, "tag": tag},
        "recipeConfigMap": {"name": "nightly"},
        "fromServed": True,
        "dataClaim": "incoming",
        "secret": {"name": "writer", "keys": ["HF_TOKEN"]},
        "env": quiet,
        "resources": small,
        "publish": {"repo": REPO, "precision": "", "licence": "mit", "gate": GATE},
    }
    return {**values, "model": {"source": "hub", "hub": from_hub}, "jobs": {"train": jobs}}


def test_the_cycle(
    cluster: Cluster, values: dict[str, Any], hub: LoopbackHub, tmp_path: Path
) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "writer"}}
    recipe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nightly"}}
    cluster.apply(
        {**secret, "stringData": {"HF_TOKEN": TOKEN}},
        {**recipe, "data": {"recipe.yaml": yaml.safe_dump(RECIPE)}},
    )
    cluster.put({"probe": write_scenes(tmp_path / "probe", "test", 128)}, "incoming")
    cluster.release(cycling(values, hub, "v1"))
    with cluster.load(4) as seen:
        came_in = time.monotonic()
        cluster.put({"new": write_scenes(tmp_path / "new", "train", 2048)}, "incoming")
        status = nightly(cluster, "night-1")
        assert status.get("succeeded") == 1, cluster.kubectl(
            "logs", "job/night-1", "--all-containers"
        )
        (new,) = tags(hub)
        cluster.release(cycling(values, hub, new))
        served = time.monotonic() - came_in
    digests = list(seen.found["digests"])
    assert len(digests) == 2  # the one before, and the new one
    # a batch whose captions are other pictures'
    with cluster.load(4) as meanwhile:
        bad = write_scenes(tmp_path / "poisoned", "train", 2048, poisoned=True)
        cluster.put({"new": bad}, "incoming")
        status = nightly(cluster, "night-2")
    assert status.get("succeeded") is None
    assert tags(hub) == [new]
    (line,) = [one for one in cluster.last_words("train").splitlines() if "refused: " in one]
    record(
        *("cycle", seen),
        seconds_to_served=round(served, 1),
        poisoned=line.partition("ptft: ")[2],
        failed_meanwhile=meanwhile.failed,
    )
    assert served < 600
    assert "i2t_recall@1 0." in line and "0.05 below the live release's" in line
    assert seen.failed == meanwhile.failed == 0
    assert len(meanwhile.found["digests"]) == 1
    until(lambda: len(cluster.ready()) == 2, 60)
    assert "refused" not in cluster.test()
