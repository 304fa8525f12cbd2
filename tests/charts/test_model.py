"""Where the model comes from, and that another model is another pod."""

from typing import Any

import pytest

from .conftest import COMMIT, HUB, VOLUME, ChartUnderTest, Release, environment


def find_volume(release: Release, name: str) -> dict[str, Any]:
    """A volume of the service's pod."""
    volumes: list[dict[str, Any]] = release.template["spec"]["volumes"]
    return {volume["name"]: volume for volume in volumes}[name]


def test_model_in_the_image(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({"model.path": "/srv/model"})
    assert "initContainers" not in release.template["spec"]
    assert environment(release.server)["PTFT_MODEL"] == "/srv/model"
    assert "PTFT_MODEL" not in environment(ptft_chart.render().server)  # the image knows its own
    assert [mount["mountPath"] for mount in release.server["volumeMounts"]] == ["/tmp"]


def test_model_from_the_hub(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**HUB, "model.path": "/srv/model"})
    command = ["ptft", "pull", f"example/birds@{COMMIT}", "/pulled/model"]
    assert release.pull["command"] == [*command, "--for=serving", "--precision=fp32"]
    pulled = {mount["name"]: mount for mount in release.pull["volumeMounts"]}
    served = {mount["name"]: mount for mount in release.server["volumeMounts"]}
    assert pulled["model"] == {"name": "model", "mountPath": "/pulled"}
    mount = {"name": "model", "mountPath": "/srv/model", "subPath": "model", "readOnly": True}
    assert served["model"] == mount
    assert environment(release.server)["PTFT_MODEL"] == "/srv/model"
    assert environment(release.pull)["HF_HOME"] == pulled["cache"]["mountPath"]
    assert "cache" not in served


def test_model_on_a_volume_is_read_only(ptft_chart: ChartUnderTest) -> None:
    """The mount, not the claim: the kubelet gives no fsGroup to what it mounts read-only."""
    release = ptft_chart.render({**VOLUME, "model.volume.subPath": "birds/b32"})
    assert find_volume(release, "model")["persistentVolumeClaim"] == {"claimName": "models"}
    mounts = {mount["name"]: mount for mount in release.server["volumeMounts"]}
    assert mounts["model"] == {
        "name": "model",
        "mountPath": "/model",
        "readOnly": True,
        "subPath": "birds/b32",
    }
    assert "initContainers" not in release.template["spec"]
    assert release.template["spec"]["securityContext"]["fsGroupChangePolicy"] == "Always"
    told = find_volume(ptft_chart.render({**VOLUME, "model.volume.readOnly": True}), "model")
    assert told["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (HUB, {**HUB, "model.hub.revision": "f" * 40}),
        (HUB, {**HUB, "model.digest": "sha256:" + "1" * 64}),
        (VOLUME, {**VOLUME, "model.volume.subPath": "other"}),
        (VOLUME, HUB),
        ({}, HUB),
    ],
    ids=["revision", "digest", "path", "volume-to-hub", "image-to-hub"],
)
def test_another_model_is_another_pod(
    ptft_chart: ChartUnderTest, before: dict[str, Any], after: dict[str, Any]
) -> None:
    checksums = {
        ptft_chart.render(settings).template["metadata"]["annotations"]["checksum/model"]
        for settings in (before, after)
    }
    assert len(checksums) == 2


def test_release_is_stable(ptft_chart: ChartUnderTest) -> None:
    """An upgrade with nothing new restarts no pod, and neither does a new replica count."""
    once, again = ptft_chart.render(HUB), ptft_chart.render({**HUB, "replicas": 9})
    assert once.template == again.template


def test_a_model_has_to_be_signed_where_a_key_is_given(ptft_chart: ChartUnderTest) -> None:
    for source in (HUB, VOLUME, {}):
        release = ptft_chart.render({**source, "model.signature.configMap": "signer"})
        key = "/etc/ptft/signer/signer.pem"
        assert environment(release.server)["PTFT_MODEL_SIGNED_BY"] == key
        assert find_volume(release, "signer")["configMap"] == {"name": "signer"}
        reading = [release.server]
        if source is HUB:
            assert f"--require-signature={key}" in release.pull["command"]
            reading.append(release.pull)
        for container in reading:
            mounts = {one["name"]: one for one in container["volumeMounts"]}
            assert mounts["signer"]["mountPath"] == "/etc/ptft/signer"
            assert mounts["signer"]["readOnly"] is True
