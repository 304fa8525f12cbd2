"""A model is served only with the signature that the release asks for: one that was tampered with,
one without and one of another's key are refused by name, whoever reads the model, and the pods
that serve stay."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import FolderFiles, read_model_info
from ptft.hub import push_model
from ptft.signing import sign_folder
from tests.e2e.cluster import Cluster, Refused
from tests.e2e.conftest import serving
from tests.e2e.figures import record
from tests.support.keys import make_key
from tests.support.loopback_hub import LoopbackHub

REPO, TOKEN = "org/signed", "hf_writes"
WORDS = {  # how each is refused
    "tampered": r"golden\.safetensors: changed since it was signed: sha256 ",
    "unsigned": r"not signed: it has no model\.sig",
    "foreign": r"model\.sig: not signed with /etc/ptft/signer/signer\.pem",
}


@pytest.fixture(scope="module")
def folders(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two that are signed, and three that are not, each in its way."""
    place = tmp_path_factory.mktemp("signed")
    for name in ("mine", "other"):
        make_key(place / f"{name}.pem")
    found = {}
    for name, source, key in (
        ("signed", "one", "mine"),
        ("next", "two", "mine"),
        ("unsigned", "three", None),
        ("foreign", "three", "other"),
        ("tampered", "three", None),
    ):
        found[name] = place / name
        shutil.copytree(models[source], found[name])
        if key is not None:
            sign_folder(found[name], place / f"{key}.pem")
    # other weights, with their own record: only the signature tells
    shutil.copy2(found["next"] / FolderFiles.SIGNATURE, found["tampered"])
    return {**found, "key": place / "mine.pub"}


@pytest.fixture(scope="module")
def signer(placed: Cluster, folders: dict[str, Path]) -> dict[str, Any]:
    """The section that asks for it; the folders are on the claim."""
    placed.put({name: folder for name, folder in folders.items() if folder.is_dir()})
    placed.kubectl("create", "configmap", "signer", f"--from-file=signer.pem={folders['key']}")
    return {"signature": {"configMap": "signer"}}


def test_on_a_volume(
    placed: Cluster, values: dict[str, Any], signer: dict[str, Any], folders: dict[str, Path]
) -> None:
    def of(name: str) -> dict[str, Any]:
        return {**values, "model": {**serving(name), **signer}}

    said = {}
    placed.release(of("signed"))
    with placed.load() as seen:
        placed.release(of("next"))
        before = placed.ages()
        for name in WORDS:
            with pytest.raises(Refused, match=WORDS[name]) as refused:
                placed.release(of(name))
            said[name] = own_words(refused.value)
        # without a gate the service itself refuses, and the rollout stops there
        with pytest.raises(Refused, match="deadline"):
            placed.release({**of("unsigned"), **IMPATIENT})
        said["service"] = died_of(placed)
        assert {name: placed.ages()[name] for name in before} == before
        placed.release(of("next"))
    record("signatures on a volume", seen, refused=said)
    assert "not signed: it has no model.sig" in said["service"]
    assert seen.failed == 0, seen.found
    assert set(seen.found["digests"]) == {
        read_model_info(folders[name]).digest for name in ("signed", "next")
    }


IMPATIENT = {
    "gate": {"enabled": False},
    "probes": {"startup": {"failureThreshold": 15}},
    "rollout": {"progressDeadlineSeconds": 20},
}


def own_words(error: Refused) -> str:
    """The line of ptft's own."""
    return next(one for one in str(error).splitlines() if one.startswith("ptft: "))


def died_of(cluster: Cluster) -> str:
    """What a container of the service that ended said last."""
    return "\n".join(
        ended.get("message", "")
        for pod in cluster.pods()
        for one in pod["status"]["containerStatuses"]
        for state in (one["state"], one["lastState"])
        if (ended := state.get("terminated"))
    )


@pytest.fixture
def hub(folders: dict[str, Path]) -> Iterator[LoopbackHub]:
    """Each under a tag with its name."""
    host = os.environ.get("PTFT_E2E_HOST")
    if host is None:
        pytest.skip("PTFT_E2E_HOST is not set: pods reach no address of this machine")
    with LoopbackHub(token=TOKEN, host=host) as running:
        for name, folder in folders.items():
            if folder.is_dir():
                given = {"licence": "mit", "endpoint": running.url, "token": TOKEN}
                push_model(folder, REPO, tag=f"{name}-1", **given)
        yield running


@pytest.mark.parametrize("cached", [False, True])
def test_from_the_hub(
    placed: Cluster,
    values: dict[str, Any],
    signer: dict[str, Any],
    folders: dict[str, Path],
    hub: LoopbackHub,
    cached: bool,
) -> None:
    """What pulls refuses it, before anything large is fetched."""
    section = {
        "repo": REPO,
        "endpoint": hub.url,
        "extraEnv": [{"name": "HF_HUB_DISABLE_XET", "value": "1"}],
        "cache": {"enabled": cached, "size": "1Gi", "accessMode": "ReadWriteOnce"},
    }

    def of(name: str) -> dict[str, Any]:
        pinned = {**section, "revision": f"{name}-1"}
        return {**values, "model": {"source": "hub", "hub": pinned, **signer}}

    said = {}
    placed.release(of("signed"))
    with placed.load() as seen:
        placed.release(of("next"))
        before = placed.ages()
        for name in WORDS:
            hub.requests.clear()
            with pytest.raises(Refused, match=f"{REPO}@{name}-1: {WORDS[name]}") as refused:
                placed.release(of(name))
            said[name] = own_words(refused.value)
            assert hub.calls(".onnx", "GET") == []
        assert placed.ages() == before
    record(f"signatures from the hub{', cached' if cached else ''}", seen, refused=said)
    assert seen.failed == 0, seen.found
    assert set(seen.found["digests"]) == {
        read_model_info(folders[name]).digest for name in ("signed", "next")
    }
