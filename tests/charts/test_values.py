"""Values: none is dead, and the README tells the truth about each."""

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from .conftest import CHART, DEFAULTS, HUB, VOLUME, ChartUnderTest, Release, read_values
from .generated import leaves

README = (CHART / "README.md").read_text()


KEYS = dict(leaves(DEFAULTS, DEFAULTS))
CHANGED = dict(
    leaves(
        yaml.safe_load(Path(__file__).with_name("every_value_changed.yaml").read_text()), DEFAULTS
    )
)
EVERYTHING = {  # so that each value has something to change
    "ingress.enabled": True,
    "ingress.hosts": ["a.example"],
    "networkPolicy.enabled": True,
    "metrics.scrape": "serviceMonitor",
    "metrics.rules.enabled": True,
    "metrics.dashboard.enabled": True,
    "gpu.count": 1,
    "autoscaling.enabled": True,
}
KEDA = {
    "autoscaling.by": "keda",
    "autoscaling.keda.serverAddress": "http://prometheus:9090",
    "autoscaling.targetWorkSeconds": 1,
}
ROUTE = {
    "canary.enabled": True,
    "canary.by": "httpRoute",
    "canary.httpRoute.parentRefs": [{"name": "gateway"}],
}
TRAIN: dict[str, Any] = {
    "jobs.train.enabled": True,
    "jobs.train.image.repository": "train",
    "jobs.train.recipe": "pretrain/scenes",
    "jobs.train.claim": "runs",
}
PUBLISH = {**TRAIN, "jobs.train.publish.repo": "a/b"}
NEEDED: dict[str, dict[str, Any]] = {  # the start of a key -> what it needs to change anything
    "model.hub": {**HUB, "model.hub.tokenSecret.name": "hub"},
    "model.hub.cache": {**HUB, "model.hub.cache.enabled": True},
    "model.hub.cache.enabled": HUB,
    "model.volume": VOLUME,
    "model.signature": {"model.signature.configMap": "signer"},
    "replicas": {"autoscaling.enabled": False},
    "serving.keysSecret": {"serving.keysSecret.name": "keys"},
    "serving.maxQueue": {"serving.maxBatch": 9},
    "serving.maxMemoryBytes": {"serving.maxBodyBytes": 1024},
    "serving.metrics": {"metrics.serviceMonitor.keySecret.name": "key"},
    "serving.provider": {"serving.providerOptions": "device_id=0", "serving.provider": "openvino"},
    "service.loadBalancerSourceRanges": {"service.type": "LoadBalancer"},
    "ingress.certManager": {"ingress.certManager.issuer": "issuer"},
    "autoscaling.keda": KEDA,
    "autoscaling.keda.wakeThreshold": {**KEDA, "autoscaling.keda.wakeQuery": "sum(other)"},
    "autoscaling.keda.failureThreshold": {**KEDA, "autoscaling.keda.fallbackReplicas": 2},
    "search.subPath": {"search.claim": "index"},
    "jobs.train": TRAIN,
    "jobs.train.image.tag": {**TRAIN, "jobs.train.image.digest": ""},
    "jobs.train.recipeConfigMap": {
        **TRAIN,
        "jobs.train.recipe": "",
        "jobs.train.recipeConfigMap.name": "recipes",
    },
    "jobs.train.fromServed": {**HUB, **TRAIN},
    "jobs.train.secret": {
        **TRAIN,
        "jobs.train.secret": {"name": "tokens", "keys": ["HF_TOKEN"]},
    },
    "jobs.train.graceSeconds": {**TRAIN, "jobs.train.gpus": 2},
    "jobs.train.claim": {key: value for key, value in TRAIN.items() if "claim" not in key},
    "jobs.train.publish": PUBLISH,
    "jobs.embed": {"jobs.embed.enabled": True, "jobs.embed.claim": "corpus"},
    "metrics.serviceMonitor.keySecret": {"metrics.serviceMonitor.keySecret.name": "key"},
    "gate.probe.subPath": {"gate.probe.claim": "probes"},
    "gate.atLeast": {"gate.probe.configMap": "probe"},
    "gate.drop": {"gate.probe.configMap": "probe"},
    "gate.liveUrl": {"gate.probe.configMap": "probe", "gate.drop": {"top1": 0.2}},
    "gate.keySecret": {"gate.keySecret.name": "key"},
    "canary": {"canary.enabled": True, "autoscaling.enabled": False},
    "canary.enabled": {},
    "canary.compare.atMost.disagreement": {"canary.enabled": True, "canary.mirror": 0.1},
    "canary.header": ROUTE,
    "canary.httpRoute": ROUTE,
}
BESIDE: dict[str, dict[str, Any]] = {  # what has to change with a value
    "model.source": HUB,
    "autoscaling.by": KEDA,
    "jobs.train.enabled": TRAIN,
    "jobs.embed.enabled": {"jobs.embed.claim": "corpus"},
    "jobs.train.resources.requests.memory": {"jobs.train.resources.limits.memory": "9Gi"},
    "probes.startup.periodSeconds": {"probes.startup.failureThreshold": 9},
}


def needed(key: str) -> dict[str, Any]:
    """The values among which a change of ``key`` has to show."""
    starts = [start for start in NEEDED if key.startswith(start)]
    return {**EVERYTHING, **(NEEDED[max(starts, key=len)] if starts else {})}


def manifests(release: Release) -> str:
    """All manifests but for the checksum, which follows every value of the section ``model``."""
    return re.sub(r'"checksum/model": "\w+"', "", json.dumps(release.documents))


def test_every_value_is_changed_below() -> None:
    assert set(CHANGED) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_no_value_is_dead(ptft_chart: ChartUnderTest, key: str) -> None:
    base, beside = needed(key), BESIDE.get(key, {})
    before = ptft_chart.render({**base, **(beside if "probes" in key else {})}, upgrade=True)
    after = ptft_chart.render({**base, **beside, key: CHANGED[key]}, upgrade=True)
    assert manifests(before) != manifests(after)


def test_readme_lists_exactly_the_values() -> None:
    rows = re.findall(r"^\| `([\w.-]+)` \| `(.*?)` \|", README, re.MULTILINE)
    assert [key for key, _ in rows] == sorted([key for key, _ in rows], key=list(KEYS).index)
    assert {key: json.loads(default) for key, default in rows} == KEYS


def test_readme_names_only_values_that_exist() -> None:
    text = README.split("## Values")[0]
    sections = {key.split(".")[0] for key in KEYS if "." in key}
    named = {
        name
        for name in re.findall(r"`([A-Za-z][\w.]*)`", text)
        if name.split(".")[0] in sections and "." in name
    }
    assert named, "the README names no value"
    for name in named:
        assert any(key == name or key.startswith(f"{name}.") for key in KEYS), name


def test_commands_of_the_readme_render(ptft_chart: ChartUnderTest) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    installs = [
        words for words in commands if words[:2] in (["helm", "install"], ["helm", "upgrade"])
    ]
    assert len(installs) >= 4
    for words in installs:
        values: dict[str, Any] = {}
        for option, given in itertools.pairwise(words):
            if option == "-f":
                values = read_values(CHART.parents[1] / given)
            elif option in ("--set", "--set-string"):
                merge(values, helm.parse_set_string(given))
        ptft_chart.render(values=values)


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Add ``more`` to nested maps in place, as repeated --set do."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
