"""Who reaches the service, and whom it reaches."""

from .conftest import CHART, HUB, ChartUnderTest, read_values


def test_traffic_reaches_the_server_and_not_the_test_pod(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render(values=read_values(CHART / "examples" / "hub.yaml"))
    selectors = [
        release.get("Service")["spec"]["selector"],
        release.get("Deployment")["spec"]["selector"]["matchLabels"],
        release.get("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        release.get("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    server, test = release.template["metadata"]["labels"], release.get("Pod")["metadata"]["labels"]
    for selector in selectors:
        assert selector.items() <= server.items()
        assert not selector.items() <= test.items()
    monitored = release.get("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= release.get("Service")["metadata"]["labels"].items()
    port = release.get("Service")["spec"]["ports"][0]["targetPort"]
    assert {entry["name"]: entry["containerPort"] for entry in release.server["ports"]} == {
        port: 3000
    }


def test_network_policy_opens_only_the_hub(ptft_chart: ChartUnderTest) -> None:
    on = {"networkPolicy.enabled": True}
    assert ptft_chart.render(on).get("NetworkPolicy")["spec"]["egress"] == []
    for endpoint, port in {
        "": 443,
        "https://hub.example.org/base": 443,
        "http://hub.example.org": 80,
        "https://hub.example.org:8443": 8443,
    }.items():
        release = ptft_chart.render({**HUB, **on, "model.hub.endpoint": endpoint})
        _, hub = release.get("NetworkPolicy")["spec"]["egress"]
        assert hub == {"ports": [{"port": port, "protocol": "TCP"}]}


def test_network_policy_lets_helm_test_in(ptft_chart: ChartUnderTest) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "search"}}}
    release = ptft_chart.render({"networkPolicy": {"enabled": True, "from": [peer]}})
    *ours, theirs = release.get("NetworkPolicy")["spec"]["ingress"][0]["from"]
    askers = [release.get("Pod"), release.get("Job")["spec"]["template"]]  # the gate's asks, too
    for one, asker in zip(ours, askers, strict=True):
        labels = asker["metadata"]["labels"]
        assert one["podSelector"]["matchLabels"].items() <= labels.items()
    assert theirs == peer


def test_ingress_keeps_metrics_inside(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({"ingress": {"enabled": True, "hosts": ["a.example", "b.example"]}})
    rules = release.get("Ingress")["spec"]["rules"]
    assert [rule["host"] for rule in rules] == ["a.example", "b.example"]
    assert [path["path"] for rule in rules for path in rule["http"]["paths"]] == ["/v1", "/v1"]
    assert "curl http://a.example/v1/" in release.notes


def test_a_certificate_is_made_for_the_hosts(ptft_chart: ChartUnderTest) -> None:
    hosts = ["a.example", "b.example"]
    settings = {
        "ingress.enabled": True,
        "ingress.hosts": hosts,
        "ingress.certManager": {"issuer": "internal", "kind": "Issuer"},
    }
    release = ptft_chart.render(settings)
    spec = release.get("Certificate")["spec"]
    assert spec["dnsNames"] == hosts
    assert spec["issuerRef"] == {"group": "cert-manager.io", "kind": "Issuer", "name": "internal"}
    (tls,) = release.get("Ingress")["spec"]["tls"]
    assert tls == {"secretName": spec["secretName"], "hosts": hosts}
    assert "curl https://a.example/v1/" in release.notes
    assert ptft_chart.render({"ingress.certManager.issuer": "internal"}).find("Certificate") is None


def test_peers_are_added_to_those_that_may_ask(ptft_chart: ChartUnderTest) -> None:
    """An ingress controller that is let in shuts nobody of the namespace out."""
    outside = {"namespaceSelector": {"matchLabels": {"name": "ingress-nginx"}}}
    on = {"networkPolicy.enabled": True, "networkPolicy.ingressController": [outside]}
    peers = ptft_chart.render(on).get("NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert {"podSelector": {}} in peers and outside in peers
    told = {**on, "networkPolicy.from": [{"podSelector": {"matchLabels": {"a": "b"}}}]}
    peers = ptft_chart.render(told).get("NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert {"podSelector": {}} not in peers and outside in peers


def test_secrets_are_named_and_never_made(ptft_chart: ChartUnderTest) -> None:
    """So that an ExternalSecret, or whoever, brings them."""
    release = ptft_chart.render(values=read_values(CHART / "ci" / "hardened-values.yaml"))
    assert release.find("Secret") is None
    volume = next(one for one in release.template["spec"]["volumes"] if one["name"] == "keys")
    assert volume["secret"] == {"secretName": "api-keys"}
