"""Models on a claim: filled by a Job, read by every pod, asked of the Hub by nobody else."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest

from ptft.artifact import read_model_info
from ptft.errors import HubError, SignatureError, UsageError
from ptft.hub.kept import kept_name
from serving.model import verify_model
from serving.settings import Settings
from tests.support.loopback_hub import LoopbackHub

from .conftest import COMMIT, HUB, VOLUME, ChartUnderTest, Release, environment, named
from .test_pull import REPO, publish

CACHED = {**HUB, "model.hub.cache.enabled": True}
FOLDER = f"example--birds@{COMMIT}"


def jobs(release: Release) -> dict[str, dict[str, Any]]:
    found = [one for one in release.documents if one["kind"] == "Job"]
    return {one["metadata"]["name"]: one for one in found}


def filling(job: dict[str, Any]) -> dict[str, Any]:
    """Its container."""
    return named(job["spec"]["template"]["spec"]["containers"], "cache")


def test_it_is_there_before_the_gate_and_before_a_rollback(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render(CACHED)
    claim, fill, gate = release.get("PersistentVolumeClaim"), *jobs(release).values()
    hooks = [one["metadata"]["annotations"] for one in (claim, fill, gate)]
    weights = [int(one.get("helm.sh/hook-weight", 0)) for one in hooks]
    assert weights == sorted(set(weights))
    assert hooks[1]["helm.sh/hook"] == "pre-install,pre-upgrade,pre-rollback"
    # its log is there after it: where the Hub was away it says so
    assert hooks[1]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    # and nothing makes the claim anew, or takes it away
    assert "before-hook-creation" not in hooks[0]["helm.sh/hook-delete-policy"]
    assert hooks[0]["helm.sh/resource-policy"] == "keep"


def test_every_pod_reads_where_the_job_writes(ptft_chart: ChartUnderTest) -> None:
    more = {"canary.enabled": True, "canary.model": {"hub": {"revision": "v2"}}}
    more |= {"jobs.embed.enabled": True, "jobs.embed.claim": "corpus"}
    release = ptft_chart.render({**CACHED, **more})
    fills = [one for name, one in jobs(release).items() if "cache" in name]
    assert [filling(one)["command"][2] for one in fills] == [
        f"example/birds@{COMMIT}",
        "example/birds@v2",
    ]
    for job in fills:
        (mount,) = [one for one in filling(job)["volumeMounts"] if one["name"] == "model"]
        assert mount == {"name": "model", "mountPath": filling(job)["command"][3]}
    readers = {
        container["name"]: (pod, container)
        for pod in release.pods
        for container in pod["containers"]
        if container["name"] in ("server", "gate", "embed")
        and any(one["name"] == "model" for one in container.get("volumeMounts", ()))
    }
    assert set(readers) == {"server", "gate", "embed"}
    claim = {"persistentVolumeClaim": {"claimName": "demo-ptft-models"}, "name": "model"}
    for pod in (*[one[0] for one in readers.values()], *release.pods):
        volumes = {one["name"]: one for one in pod.get("volumes", ()) if one["name"] == "model"}
        assert not volumes or volumes == {"model": claim}
        assert not [one for one in pod.get("initContainers", ()) if one["name"] == "pull"]
    paths = {
        mount["subPath"]
        for pod in release.pods
        for container in pod["containers"]
        for mount in container.get("volumeMounts", ())
        if mount["name"] == "model" and container["name"] != "cache"
        if mount["readOnly"]
    }
    assert paths == {FOLDER, "example--birds@v2"}
    assert paths == {kept_name(filling(one)["command"][2]) for one in fills}


def test_the_claim_is_the_charts_or_ones_own(ptft_chart: ChartUnderTest) -> None:
    more = {"size": "50Gi", "storageClass": "shared", "accessMode": "ReadWriteOnce"}
    made = ptft_chart.render({**CACHED, **{f"model.hub.cache.{k}": v for k, v in more.items()}})
    assert made.get("PersistentVolumeClaim")["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "shared",
        "resources": {"requests": {"storage": "50Gi"}},
    }
    own = ptft_chart.render({**CACHED, "model.hub.cache.claim": "models"})
    assert own.find("PersistentVolumeClaim") is None
    volume = named(own.template["spec"]["volumes"], "model")
    assert volume["persistentVolumeClaim"] == {"claimName": "models"}
    for without in (HUB, VOLUME, {}):
        release = ptft_chart.render(without)
        assert release.find("PersistentVolumeClaim") is None
        assert not [name for name in jobs(release) if "cache" in name]


def test_only_the_job_knows_the_hub(ptft_chart: ChartUnderTest) -> None:
    hub = {"model.hub.tokenSecret.name": "hub", "model.hub.endpoint": "https://hub.example.org"}
    release = ptft_chart.render({**CACHED, **hub, "networkPolicy.enabled": True})
    (fill,) = [one for name, one in jobs(release).items() if "cache" in name]
    assert {"HF_TOKEN", "HF_ENDPOINT"} <= set(environment(filling(fill)))
    assert "HF_TOKEN" not in str(release.template)
    assert release.get("NetworkPolicy")["spec"]["egress"] == []  # and the service reaches nobody


def test_a_key_goes_with_it(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**CACHED, "model.signature.configMap": "signer"})
    (fill,) = [one for name, one in jobs(release).items() if "cache" in name]
    assert "--require-signature=/etc/ptft/signer/signer.pem" in filling(fill)["command"]
    assert named(fill["spec"]["template"]["spec"]["volumes"], "signer")
    # what it refuses is not asked for again
    (_, final) = fill["spec"]["podFailurePolicy"]["rules"]
    assert final["action"] == "FailJob"
    codes = {UsageError.exit_code, SignatureError.exit_code}
    assert set(final["onExitCodes"]["values"]) == codes
    assert HubError.exit_code not in codes


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**VOLUME, "model.hub.cache.enabled": True}, "cache"),
        ({**CACHED, "model.hub.cache.keep": 1}, "keep"),
        ({**CACHED, "model.hub.cache.accessMode": "ReadOnlyMany"}, "accessMode"),
        ({**HUB, "model.hub.cacheClaim": "a"}, "cacheClaim"),
        ({**CACHED, "model.hub.cache.claims": "a"}, "claims"),
    ],
)
def test_what_is_refused(ptft_chart: ChartUnderTest, values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError, match=said):
        ptft_chart.render(values)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own upload
def test_the_service_starts_on_what_the_job_brought_while_the_hub_is_down(
    ptft_chart: ChartUnderTest, classifier_folder: Path, tmp_path: Path
) -> None:
    """The Job's own command, with and without a Hub on this machine."""
    with LoopbackHub() as hub:
        commit = publish(hub, classifier_folder)
        settings = {**CACHED, "model.hub.repo": REPO, "model.hub.revision": commit}
        release = ptft_chart.render({**settings, "model.hub.endpoint": hub.url})
        ended = [fill(release, tmp_path, hub.token)]
    ended.append(fill(release, tmp_path, hub.token))
    assert [one.returncode for one in ended] == [0, 0], ended
    assert "is there whole" in ended[1].stderr and "is there whole" not in ended[0].stderr
    (mount,) = [one for one in release.server["volumeMounts"] if one["name"] == "model"]
    info, _ = verify_model(Settings(model=tmp_path / "models" / mount["subPath"]))
    assert info == read_model_info(classifier_folder)


def fill(release: Release, root: Path, token: str) -> subprocess.CompletedProcess[str]:
    """Run the Job's command with its mounts below ``root``, in a new pod each time."""
    (job,) = [one for name, one in jobs(release).items() if "cache" in name]
    container = filling(job)
    place = root / f"pod-{len(list(root.iterdir()))}"
    at = {"/tmp": place / "tmp", "/cache": place / "cache", "/models": root / "models"}
    for folder in at.values():
        folder.mkdir(parents=True, exist_ok=True)
    variables = {
        name: str(at.get(value, value))
        for name, value in environment(container).items()
        if isinstance(value, str)
    }
    variables |= {"HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    variables["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    program, *words = [str(at.get(word, word)) for word in container["command"]]
    assert program == "ptft", shlex.join(words)
    script = "import sys; from ptft.cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
