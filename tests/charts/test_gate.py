"""The Job that holds a model before any pod changes, and what `helm test` holds later."""

from typing import Any

import helm_python as helm
import pytest
import typer

from ptft.cli.main import app

from .conftest import HUB, VOLUME, ChartUnderTest, Release, environment, named

PROBE = {
    "gate.probe.configMap": "probe",
    "gate.atLeast": {"top1": 0.8},
    "gate.drop": {"top1": 0.02},
}
DIGEST = f"sha256:{'1' * 64}"


def jobs(release: Release) -> dict[str, dict[str, Any]]:
    """Each gate by its name."""
    found = [one for one in release.documents if one["kind"] == "Job"]
    return {one["metadata"]["name"]: one for one in found}


def gate(job: dict[str, Any]) -> dict[str, Any]:
    """Its container."""
    return named(job["spec"]["template"]["spec"]["containers"], "gate")


def words(container: dict[str, Any]) -> list[str]:
    """What it runs, which the command has to take."""
    assert container["command"][:2] == ["ptft", "gate"]
    found: list[str] = container["command"][2:]
    given = [word.replace("$(PTFT_THREADS)", "1") for word in found]
    command = typer.main.get_command(app)
    command.commands["gate"].make_context("gate", list(given))  # type: ignore[attr-defined]
    return found


def test_it_comes_before_all_else(ptft_chart: ChartUnderTest) -> None:
    (job,) = jobs(ptft_chart.render()).values()
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert words(gate(job)) == ["/model", "--precision", "fp32", "--threads", "$(PTFT_THREADS)"]
    # the release's own account is not there yet
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]
    assert not jobs(ptft_chart.render({"gate.enabled": False}))
    own = ptft_chart.render({"serviceAccount.create": False, "serviceAccount.name": "mine"})
    (job,) = jobs(own).values()
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "mine"


def test_its_pods_are_not_the_services(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render()
    (job,) = jobs(release).values()
    labels = job["spec"]["template"]["metadata"]["labels"]
    selector = release.get("Service")["spec"]["selector"]
    assert not selector.items() <= labels.items()


def test_bounds_become_options(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**PROBE, "model.digest": DIGEST, "serving.precision": "int8"})
    (job,) = jobs(release).values()
    found = words(gate(job))
    assert found[:3] == ["/model", "--precision", "int8"]
    assert found[5:] == ["--digest", DIGEST, "--probe", "/probe", "--at-least", "top1=0.8"]
    volumes = job["spec"]["template"]["spec"]["volumes"]
    assert named(volumes, "probe")["configMap"] == {"name": "probe"}
    url = {"gate.liveUrl": "http://live:3000"}
    (job,) = jobs(ptft_chart.render({**PROBE, **url})).values()
    assert words(gate(job))[-4:] == ["--live", "http://live:3000", "--drop", "top1=0.02"]


@pytest.mark.parametrize("source", [HUB, VOLUME])
def test_it_reads_the_model_where_the_service_does(
    ptft_chart: ChartUnderTest, source: dict[str, Any]
) -> None:
    release = ptft_chart.render(source)
    (job,) = jobs(release).values()
    pod, server = job["spec"]["template"]["spec"], release.server
    own = [one for one in server["volumeMounts"] if one["name"] == "model"]
    assert own
    assert [one for one in gate(job)["volumeMounts"] if one["name"] == "model"] == own
    assert named(pod["volumes"], "model") == named(release.template["spec"]["volumes"], "model")
    assert pod.get("initContainers") == release.template["spec"].get("initContainers")


@pytest.mark.parametrize("source", [HUB, VOLUME, {}])
def test_a_signature_that_is_asked_for(ptft_chart: ChartUnderTest, source: dict[str, Any]) -> None:
    release = ptft_chart.render({**source, "model.signature.configMap": "signer"})
    (job,) = jobs(release).values()
    found = words(gate(job))
    assert found[found.index("--require-signature") + 1] == "/etc/ptft/signer/signer.pem"
    assert named(gate(job)["volumeMounts"], "signer")["mountPath"] == "/etc/ptft/signer"
    assert named(job["spec"]["template"]["spec"]["volumes"], "signer")


def test_a_probe_set_of_the_hub(ptft_chart: ChartUnderTest) -> None:
    token = {"model.hub.tokenSecret": {"name": "hf", "key": "token"}}
    at = {"model.hub.endpoint": "https://hub.example.org", "gate.probe.hub": "shop/probe@v1"}
    (job,) = jobs(ptft_chart.render({**HUB, **token, **at})).values()
    variables = environment(gate(job))
    assert variables["HF_ENDPOINT"] == "https://hub.example.org"
    assert variables["HF_TOKEN"] == {"secretKeyRef": {"name": "hf", "key": "token"}}
    assert variables["HF_HOME"].startswith("/tmp")
    assert words(gate(job))[-2:] == ["--probe", "shop/probe@v1"]
    (job,) = jobs(ptft_chart.render({**HUB, **token})).values()
    assert "HF_TOKEN" not in environment(gate(job))  # nothing of the Hub's is read there


def test_helm_test_holds_the_same_floors(ptft_chart: ChartUnderTest) -> None:
    keys = {"gate.keySecret.name": "asker"}
    release = ptft_chart.render({**PROBE, **keys, "model.digest": DIGEST})
    (pod,) = [one for one in release.documents if one["metadata"]["name"].endswith("test-gate")]
    container = named(pod["spec"]["containers"], "gate")
    floors = ["--probe", "/probe", "--at-least", "top1=0.8"]
    assert words(container) == ["http://demo-ptft:80", *floors, "--digest", DIGEST]
    key = {"secretKeyRef": {"name": "asker", "key": "key"}}
    assert environment(container)["PTFT_API_KEY"] == key


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gate.atLeast": {"top1": 0.8}}, "are of a probe set"),
        ({"gate.drop": {"top1": 0.8}}, "are of a probe set"),
        ({**PROBE, "gate.probe.claim": "c"}, "one of configMap, claim and hub"),
        ({**PROBE, "gate.atLeast": {"top2": 0.8}}, "top2"),
        ({**PROBE, "gate.atLeast": {"top1": 80}}, "maximum"),
        ({**PROBE, "gate.drop": {"agreement": 0.1}}, "agreement"),
        ({"gate.probe.hub": "shop/probe"}, "pattern"),
    ],
)
def test_what_cannot_be_held(ptft_chart: ChartUnderTest, values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError, match=said):
        ptft_chart.render(values)
