"""Values: none is dead, and the README tells the truth about each."""

import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from .conftest import CHART, DEFAULTS, ChartUnderTest, Release, read_values
from .test_chart import HUB, VOLUME

README = (CHART / "README.md").read_text()


def leaves(
    values: dict[str, Any], shape: dict[str, Any] = DEFAULTS, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each; what ``shape`` has as a list or an empty map is one value."""
    for key, value in values.items():
        if isinstance(shape.get(key), dict) and shape[key]:
            yield from leaves(value, shape[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


KEYS = dict(leaves(DEFAULTS))
CHANGED = dict(
    leaves(yaml.safe_load(Path(__file__).with_name("every_value_changed.yaml").read_text()))
)
EVERYTHING = {  # so that each value has something to change
    "ingress.enabled": True,
    "ingress.hosts": ["a.example"],
    "networkPolicy.enabled": True,
    "metrics.scrape": "serviceMonitor",
    "gpu.count": 1,
}


def manifests(release: Release) -> str:
    """All manifests but for the checksum, which follows every value of the section ``model``."""
    return re.sub(r'"checksum/model": "\w+"', "", json.dumps(release.documents))


def test_every_value_is_changed_below() -> None:
    assert set(CHANGED) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_no_value_is_dead(ptft_chart: ChartUnderTest, key: str) -> None:
    base: dict[str, Any] = {**EVERYTHING, "autoscaling.enabled": key != "replicas"}
    if key.startswith("model.hub"):
        base |= {**HUB, "model.hub.tokenSecret.name": "hub"}
    if key.startswith("model.volume"):
        base |= VOLUME
    if key.startswith("serving.keysSecret"):
        base["serving.keysSecret.name"] = "keys"
    change = HUB if key == "model.source" else {key: CHANGED[key]}
    before, after = ptft_chart.render(base), ptft_chart.render({**base, **change})
    assert manifests(before) != manifests(after)


def test_readme_lists_exactly_the_values() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", README, re.MULTILINE)
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
