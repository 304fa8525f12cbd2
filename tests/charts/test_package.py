"""The chart as others get it: packaged, as a part of another, with names and notes that fit."""

import json
import shutil
import subprocess
from pathlib import Path

import helm_python as helm
import pytest
import yaml

import ptft

from .conftest import CHART, COMMIT, HUB, ChartUnderTest, environment


def test_versions_agree_with_the_package() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert metadata["appVersion"] == ptft.__version__


def test_package_holds_what_a_user_needs(tmp_path: Path) -> None:
    archive = Path(helm.package(CHART, destination=tmp_path))
    assert archive.name.startswith("ptft-")
    with helm.Chart.load(archive) as packed:
        files = {file["name"] for file in packed.files}
        assert {"README.md", "files/ask.py", "examples/hub.yaml"} <= files
        assert packed.schema is not None
        with helm.Chart.load(CHART) as chart:
            assert packed.render({}, name="demo") == chart.render({}, name="demo")


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_a_packed_chart_is_held_to_who_signed_it(tmp_path: Path) -> None:
    """Helm's provenance, offline: by another key, or with other bytes, it is refused."""
    rings = {who: make_keyring(tmp_path / who) for who in ("mine", "other")}
    archive = Path(helm.package(CHART, destination=tmp_path))
    with pytest.raises(helm.HelmError):  # not signed
        helm.verify(archive, rings["mine"] / "public.gpg")
    helm.sign(archive, key="mine@example.org", keyring=rings["mine"] / "secret.gpg")
    (who,) = helm.verify(archive, rings["mine"] / "public.gpg")["signed_by"]
    assert "mine@example.org" in who
    with pytest.raises(helm.HelmError):
        helm.verify(archive, rings["other"] / "public.gpg")
    archive.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(helm.HelmError, match="sha256"):
        helm.verify(archive, rings["mine"] / "public.gpg")


def make_keyring(home: Path) -> Path:
    """A key of its own, in the old format that Helm reads."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    gpg += ["--pinentry-mode", "loopback"]
    user = f"{home.name} <{home.name}@example.org>"
    for words in (
        ["--quick-generate-key", user, "rsa2048", "sign", "never"],
        ["--export", "--output", str(home / "public.gpg")],
        ["--export-secret-keys", "--output", str(home / "secret.gpg")],
    ):
        subprocess.run([*gpg, *words], check=True, capture_output=True)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    return home


def test_chart_works_as_a_part_of_another(tmp_path: Path) -> None:
    """Helm hands a part ``global``, which a strict schema must not refuse."""
    parent = tmp_path / "parent"
    shutil.copytree(CHART, parent / "charts" / "ptft")
    (parent / "Chart.yaml").write_text("apiVersion: v2\nname: parent\nversion: 0.1.0\n")
    (parent / "values.yaml").write_text("global: {region: north}\nptft: {replicas: 5}\n")
    with helm.Chart.load(parent) as chart:
        rendered = chart.render({}, name="demo")
    deployment = yaml.safe_load(rendered["parent/charts/ptft/templates/deployment.yaml"])
    assert deployment["spec"]["replicas"] == 5


def test_digest_wins_over_tag(ptft_chart: ChartUnderTest) -> None:
    digest = "sha256:" + "a" * 64
    images = {
        "ptft:0.1.0": {},
        "ptft:7": {"image.tag": "7"},
        f"ptft@{digest}": {"image.tag": "7", "image.digest": digest},
    }
    for image, settings in images.items():
        release = ptft_chart.render({**HUB, **settings})
        used = [release.server, release.pull, release.pods[1]["containers"][0]]
        assert [container["image"] for container in used] == [image] * 3


@pytest.mark.parametrize("name", ["a" * 53, "ptft", "my-ptft-2"])
def test_names_fit(ptft_chart: ChartUnderTest, name: str) -> None:
    release = ptft_chart.render(HUB, name=name)
    names = [manifest["metadata"]["name"] for manifest in release.documents]
    assert all(len(text) <= 63 for text in names)
    assert (name in names) is ("ptft" in name)
    labels = release.get("Deployment")["metadata"]["labels"]
    assert all(len(value) <= 63 for value in labels.values())


def test_notes_ask_the_service_that_was_installed(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**HUB, "service.port": 8080})
    service = release.get("Service")["metadata"]["name"]
    assert f"port-forward service/{service} 3000:8080" in release.notes
    assert f"example/birds@{COMMIT}" in release.notes
    assert "set model.digest" in release.notes
    body = json.loads(release.notes.split("-d '")[1].split("'")[0])
    assert body == {"input": ["a red circle"]}


def test_large_numbers_stay_whole(ptft_chart: ChartUnderTest) -> None:
    """Helm reads numbers as floats, which print as 3.3554432e+07 unless told otherwise."""
    release = ptft_chart.render({"serving.maxBodyBytes": 33554432, "security.fsGroup": 1000650000})
    assert environment(release.server)["PTFT_MAX_BODY_BYTES"] == "33554432"
    assert release.template["spec"]["securityContext"]["fsGroup"] == 1000650000
