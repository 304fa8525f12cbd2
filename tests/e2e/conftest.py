"""A namespace on a cluster, the chart's values for it, and models that differ.

The tests run where KUBECONFIG points at a cluster that may be used, and PTFT_E2E_IMAGE names an
image of the service that its nodes have: docs/howto/rollout.md. They say so where they skip.
"""

import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ptft.artifact import read_model_info
from tests.e2e.cluster import CLAIM, Cluster

CLASSES = ["blue", "pink", "striped", "smooth"]  # into which `one` divides the pictures evenly


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """An own namespace, restricted as far as Kubernetes can."""
    image = os.environ.get("PTFT_E2E_IMAGE")
    if not (os.environ.get("KUBECONFIG") and image):
        pytest.skip("no cluster: set KUBECONFIG and PTFT_E2E_IMAGE (docs/howto/rollout.md)")
    if shutil.which("kubectl") is None:
        pytest.skip("no cluster: kubectl is not installed")
    found = Cluster(f"ptft-e2e-{int(time.time()) % 100000}", image)
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = {"name": found.namespace, "labels": label}
    found.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": name})
    yield found
    found.close()


def kept_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models are: a folder that keeps them for the next run, or none does."""
    kept = os.environ.get("PTFT_E2E_MODELS")
    return Path(kept) if kept else tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> model folder: three that have nothing in common, and ``one`` with noise on it."""
    from ptft.export import export_model
    from ptft.model import save_model
    from tests.support import tiny

    place = kept_place(tmp_path_factory)
    made = {}
    for name, seed, noise in (
        ("one", 3, 0.0),
        ("two", 4, 0.0),
        ("three", 5, 0.0),
        ("noisy", 3, 0.5),
        ("near", 3, 0.002),
    ):
        made[name] = place / name / "model"
        if made[name].is_dir():
            continue
        model = tiny.build(tiny.arch_section("tiny-vit"), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
        save_model(model, place / name / "checkpoint")
        export_model(place / name / "checkpoint", place / name / "model", name=name, precisions=())
    return made


@pytest.fixture(scope="session")
def digests(models: dict[str, Path]) -> dict[str, str]:
    """Name -> digest."""
    return {name: read_model_info(folder).digest for name, folder in models.items()}


@pytest.fixture(scope="session")
def placed(cluster: Cluster, models: dict[str, Path]) -> Cluster:
    """The models on a claim."""
    cluster.put(models)
    return cluster


@pytest.fixture(scope="session")
def values(cluster: Cluster) -> dict[str, Any]:
    """Two small pods that serve ``one``."""
    repository, _, tag = cluster.image.rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag},
        "model": serving("one"),
        "replicas": 2,
        "resources": {
            "requests": {"cpu": "50m", "memory": "128Mi"},
            "limits": {"memory": "1Gi"},
        },
    }


def serving(name: str) -> dict[str, Any]:
    """The section ``model`` for one on the claim."""
    return {"source": "volume", "volume": {"claim": CLAIM, "subPath": name}}


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """Name -> a PNG of sixteen colours that run into each other."""
    rng = np.random.default_rng(7)
    found = {}
    for at in range(40):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(stream, "PNG")
        found[f"{at:02}.png"] = stream.getvalue()
    return found


@pytest.fixture(scope="session")
def probe(
    placed: Cluster,
    models: dict[str, Path],
    pictures: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """A ConfigMap with pictures and the classes that ``one`` gives them."""
    from ptft.gate.answering import FolderAnswers

    place = tmp_path_factory.mktemp("probe")
    for name, data in pictures.items():
        (place / name).write_bytes(data)
    one = FolderAnswers(models["one"], "fp32", 1)
    labels = one.classes(list(pictures), list(pictures.values()), CLASSES)
    pairs = zip(pictures, labels, strict=True)
    rows = [json.dumps({"file_name": name, "label": label}) for name, label in pairs]
    (place / "metadata.jsonl").write_text("\n".join(rows))
    placed.kubectl("create", "configmap", "probe", f"--from-file={place}")
    return "probe"
