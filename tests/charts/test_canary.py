"""A second track of the release: its pods, its share, and what is refused."""

import json
from typing import Any

import helm_python as helm
import pytest

from .conftest import VOLUME, ChartUnderTest, Release, environment, named

CANARY = {**VOLUME, "canary.enabled": True, "canary.model": {"volume": {"subPath": "v2"}}}


def by_name(release: Release, kind: str) -> dict[str, dict[str, Any]]:
    """Objects of a kind."""
    return {one["metadata"]["name"]: one for one in release.documents if one["kind"] == kind}


def answering(release: Release, service: str = "demo-ptft") -> set[str]:
    """Names of the Deployments whose pods a Service selects."""
    selector = by_name(release, "Service")[service]["spec"]["selector"]
    return {
        name
        for name, one in by_name(release, "Deployment").items()
        if selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    }


def test_there_is_none_by_default(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render()
    assert list(by_name(release, "Deployment")) == ["demo-ptft"]
    assert list(by_name(release, "Service")) == ["demo-ptft"]


def test_it_differs_by_what_is_given(ptft_chart: ChartUnderTest) -> None:
    image = {"repository": "", "tag": "2.0", "digest": ""}
    release = ptft_chart.render(
        {**CANARY, "canary.image": image, "image.digest": f"sha256:{'2' * 64}"}
    )
    found = by_name(release, "Deployment")
    stable, canary = found["demo-ptft"]["spec"], found["demo-ptft-canary"]["spec"]
    assert canary["replicas"] == 1
    server = named(canary["template"]["spec"]["containers"], "server")
    assert server["image"] == "ptft:2.0"
    assert named(server["volumeMounts"], "model")["subPath"] == "v2"
    sums = [
        one["template"]["metadata"]["annotations"]["checksum/model"] for one in (stable, canary)
    ]
    assert sums[0] != sums[1]
    text = json.dumps(canary["template"]).replace("ptft:2.0", f"ptft@sha256:{'2' * 64}")
    text = text.replace(', "subPath": "v2"', "").replace('"canary"', '"server"')
    assert text.replace(sums[1], sums[0]) == json.dumps(stable["template"])
    assert (
        not stable["selector"]["matchLabels"].items()
        <= canary["template"]["metadata"]["labels"].items()
    )


def test_whom_the_services_reach(ptft_chart: ChartUnderTest) -> None:
    both = {"demo-ptft", "demo-ptft-canary"}
    for weight, replicas, expected in (
        (0, 9, {"demo-ptft"}),
        (10, 9, both),
        (50, 1, both),
        (100, 2, {"demo-ptft-canary"}),
    ):
        values = {**CANARY, "replicas": replicas, "canary.weight": weight}
        release = ptft_chart.render(values, upgrade=True)
        assert answering(release) == expected, weight
        assert answering(release, "demo-ptft-canary") == {"demo-ptft-canary"}
        assert answering(release, "demo-ptft-stable-pods") == {"demo-ptft"}
        for track in ("stable", "canary"):
            assert (
                by_name(release, "Service")[f"demo-ptft-{track}-pods"]["spec"]["clusterIP"]
                == "None"
            )


def test_a_route_divides(ptft_chart: ChartUnderTest) -> None:
    route = {"canary.by": "httpRoute", "canary.httpRoute.parentRefs": [{"name": "gateway"}]}
    release = ptft_chart.render(
        {**CANARY, **route, "canary.weight": 10, "canary.header": "x-track"}, upgrade=True
    )
    assert answering(release) == {"demo-ptft"}
    *sticky, last = release.get("HTTPRoute")["spec"]["rules"]
    weights = {one["name"]: one["weight"] for one in last["backendRefs"]}
    assert weights == {"demo-ptft": 90, "demo-ptft-canary": 10}
    stays = {
        one["matches"][0]["headers"][0]["value"]: one["backendRefs"][0]["name"] for one in sticky
    }
    assert stays == {"always": "demo-ptft-canary", "never": "demo-ptft"}
    assert sticky[0]["matches"][0]["headers"][0]["name"] == "x-track"
    assert sticky[0]["matches"][0]["path"] == {"type": "PathPrefix", "value": "/v1"}
    without = ptft_chart.render(route).get("HTTPRoute")["spec"]["rules"]  # the way in stays
    assert [one["name"] for one in without[0]["backendRefs"]] == ["demo-ptft"]


def test_an_ingress_divides(ptft_chart: ChartUnderTest) -> None:
    ingress = {"ingress.enabled": True, "ingress.hosts": ["a.example"], "canary.by": "nginx"}
    release = ptft_chart.render({**CANARY, **ingress, "canary.weight": 25}, upgrade=True)
    found = by_name(release, "Ingress")["demo-ptft-canary"]
    nginx = "nginx.ingress.kubernetes.io"
    annotations = found["metadata"]["annotations"]
    assert {
        key: annotations[f"{nginx}/{key}"]
        for key in ("canary", "canary-weight", "canary-by-header")
    } == {
        "canary": "true",
        "canary-weight": "25",
        "canary-by-header": "ptft-canary",
    }
    backend = found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"]
    assert backend == "demo-ptft-canary"
    assert answering(release) == {"demo-ptft"}


def test_helm_test_compares_both(ptft_chart: ChartUnderTest) -> None:
    gate = {
        "gate.probe.configMap": "probe",
        "gate.drop": {"top1": 0.02},
        "gate.atLeast": {"agreement": 0.9},
    }
    most = {"canary.compare": {"seconds": 20, "atMost": {"errors": 0.01, "slower": 2}}}
    release = ptft_chart.render({**CANARY, **gate, **most})
    (pod,) = [one for one in release.documents if one["metadata"]["name"].endswith("test-canary")]
    words = named(pod["spec"]["containers"], "gate")["command"]
    assert words[2:5] == [
        "http://demo-ptft-canary-pods:3000",
        "--live",
        "http://demo-ptft-stable-pods:3000",
    ]
    assert words[5:] == [
        *("--probe", "/probe", "--drop", "top1=0.02", "--at-least", "agreement=0.9"),
        *("--watch", "20", "--at-most", "errors=0.01", "--at-most", "slower=2"),
    ]


def test_it_has_a_gate_of_its_own(ptft_chart: ChartUnderTest) -> None:
    jobs = by_name(ptft_chart.render(CANARY), "Job")
    assert set(jobs) == {"demo-ptft-gate", "demo-ptft-gate-canary"}
    mounts = named(jobs["demo-ptft-gate-canary"]["spec"]["template"]["spec"]["containers"], "gate")[
        "volumeMounts"
    ]
    assert named(mounts, "model")["subPath"] == "v2"


def test_a_network_policy_holds_for_it(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**CANARY, "networkPolicy.enabled": True})
    selected = release.get("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for one in by_name(release, "Deployment").values():
        assert selected.items() <= one["spec"]["template"]["metadata"]["labels"].items()


def test_another_source(ptft_chart: ChartUnderTest) -> None:
    hub = {"source": "hub", "hub": {"repo": "a/b", "revision": "v1"}}
    release = ptft_chart.render({"canary.enabled": True, "canary.model": hub})
    pod = by_name(release, "Deployment")["demo-ptft-canary"]["spec"]["template"]["spec"]
    assert named(pod["initContainers"], "pull")
    assert environment(named(pod["containers"], "server"))["PTFT_MODEL"] == "/model"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"canary.weight": 10}, r"canary.weight \(10\) needs canary.enabled"),
        ({**CANARY, "canary.weight": 10, "replicas": 2}, r"1 beside 2 pods get 33 %"),
        ({**CANARY, "canary.weight": 13, "replicas": 9}, r"get 10 %"),
        ({**CANARY, "canary.weight": 10, "autoscaling.enabled": True}, "follow the load"),
        ({**CANARY, "canary.weight": 10, "replicas": 9}, "on installation: there is no canary"),
        ({**CANARY, "canary.by": "nginx"}, "needs ingress.enabled"),
        ({**CANARY, "canary.by": "httpRoute"}, "needs canary.httpRoute.parentRefs"),
        ({**CANARY, "canary.weight": 101}, "maximum"),
        ({**CANARY, "canary.model": {"sorce": "hub"}}, "sorce"),
        ({**CANARY, "canary.model": {"volume": {"sub": "v2"}}}, "sub"),
        ({**CANARY, "canary.image.tag": "latest"}, "canary/image/tag"),
        ({"canary.enabled": True, "canary.model": {"source": "hub"}}, "canary.model.hub.repo"),
        (
            {"canary.enabled": True, "canary.model": {"source": "volume"}},
            "canary.model.volume.claim",
        ),
    ],
)
def test_what_is_refused(ptft_chart: ChartUnderTest, values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError, match=said):
        ptft_chart.render(values)


def test_what_the_release_is_asked_goes_to_the_canary_as_well(ptft_chart: ChartUnderTest) -> None:
    peer = {"podSelector": {"matchLabels": {"team": "search"}}}
    values = {**CANARY, "canary.mirror": 0.05, "networkPolicy": {"enabled": True, "from": [peer]}}
    release = ptft_chart.render(values)
    found = by_name(release, "Deployment")
    given = [
        environment(named(found[name]["spec"]["template"]["spec"]["containers"], "server"))
        for name in ("demo-ptft", "demo-ptft-canary")
    ]
    assert given[0]["PTFT_MIRROR_URL"] == "http://demo-ptft-canary:80"
    assert given[0]["PTFT_MIRROR_SHARE"] == "0.05"
    assert not any("MIRROR" in name for name in given[1])
    policy = release.get("NetworkPolicy")["spec"]
    (out,) = [one for one in policy["egress"] if "to" in one]
    component = "app.kubernetes.io/component"
    assert out["to"][0]["podSelector"]["matchLabels"][component] == "canary"
    assert [
        one["podSelector"]["matchLabels"].get(component) for one in policy["ingress"][0]["from"]
    ] == ["test", "gate", "server", None]


def test_nothing_is_mirrored_to_no_canary(ptft_chart: ChartUnderTest) -> None:
    with pytest.raises(helm.HelmError, match=r"canary.mirror \(0.05\) needs canary.enabled"):
        ptft_chart.render({"canary.mirror": 0.05})
    with pytest.raises(helm.HelmError, match=r"needs canary\.mirror: nothing would be counted"):
        ptft_chart.render({**CANARY, "canary.compare.atMost.disagreement": 0.1})
