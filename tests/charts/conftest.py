"""The chart, rendered by Helm's own SDK: no cluster, no helm binary."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "ptft"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
PROFILES = sorted((CHART / "ci").glob("*-values.yaml"))
VALUE_FILES = [None, *EXAMPLES, *PROFILES]  # None: the defaults alone
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {
    "model.source": "hub",
    "model.hub.repo": "example/birds",
    "model.hub.revision": COMMIT,
}
BESIDE = ("-canary", "-pods", "-test-gate")  # objects beside the service's own, by their names
VOLUME = {"model.source": "volume", "model.volume.claim": "models"}


def name_of(file: Path | None) -> str:
    """An id for pytest."""
    return file.stem.removesuffix("-values") if file else "defaults"


each_values_file = pytest.mark.parametrize("file", VALUE_FILES, ids=name_of)


class StrictLoader(yaml.CSafeLoader):
    """YAML in which a key that is given twice is an error, as it is for the API server."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = {key for key in keys if keys.count(key) > 1}
        if doubled:
            raise ValueError(f"given twice: {doubled}, {node.start_mark}")
        return super().construct_mapping(node, deep)


def load_documents(text: str) -> list[dict[str, Any]]:
    """The YAML documents of one rendered template that hold anything."""
    return [doc for doc in yaml.load_all(text, StrictLoader) if doc]


def read_values(file: Path | None) -> dict[str, Any]:
    """A values file as Helm reads it; none: no values."""
    return helm.values_from_yaml(file.read_text()) if file else {}


def nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    values: dict[str, Any] = {}
    for dotted, value in settings.items():
        *path, last = dotted.split(".")
        place = values
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return values


class Release:
    """What one set of values renders to.

    Attributes:
        documents: every manifest.
        notes: the text that is shown after an installation.
    """

    def __init__(self, rendered: Mapping[str, str]) -> None:
        self.notes = rendered["ptft/templates/NOTES.txt"]
        self.documents = [
            document
            for file, text in rendered.items()
            if not file.endswith("NOTES.txt")
            for document in load_documents(text)
        ]

    def find(self, kind: str) -> dict[str, Any] | None:
        """The manifest of ``kind`` that is the service's own, None where there is none."""
        found = [
            document
            for document in self.documents
            if document["kind"] == kind and not document["metadata"]["name"].endswith(BESIDE)
        ]
        assert len(found) < 2
        return found[0] if found else None

    def get(self, kind: str) -> dict[str, Any]:
        """The manifest of ``kind``, which has to be there."""
        found = self.find(kind)
        assert found, f"no {kind} was rendered"
        return found

    @property
    def template(self) -> dict[str, Any]:
        """The Deployment's pod template."""
        template: dict[str, Any] = self.get("Deployment")["spec"]["template"]
        return template

    @property
    def pods(self) -> list[dict[str, Any]]:
        """The spec of every pod: the Deployments', the tests' and the gates'."""
        holders = ("Deployment", "Job")
        made = [one["spec"]["template"] for one in self.documents if one["kind"] in holders]
        return [one["spec"] for one in (*made, *self.documents) if one.get("kind", "Pod") == "Pod"]

    @property
    def server(self) -> dict[str, Any]:
        """The service's container."""
        return named(self.template["spec"]["containers"], "server")

    @property
    def pull(self) -> dict[str, Any]:
        """The init container that pulls the model."""
        return named(self.template["spec"]["initContainers"], "pull")


def named(containers: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The container of that name."""
    (container,) = (one for one in containers if one["name"] == name)
    return container


def environment(container: Mapping[str, Any]) -> dict[str, Any]:
    """A container's environment: name -> value, or what the value comes from."""
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names)), f"set twice: {names}"
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


class ChartUnderTest:
    """The chart and two ways to give it values: dotted settings, or a whole tree."""

    def __init__(self, chart: helm.Chart) -> None:
        self.chart = chart
        self._rendered: dict[str, Mapping[str, str]] = {}

    def render(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        values: Mapping[str, Any] | None = None,
        name: str = "demo",
        upgrade: bool = False,
    ) -> Release:
        """Render with ``values`` or with dotted ``settings``.

        Raises:
            helm.HelmError: where schema or templates refuse them.
        """
        given = dict(values) if values is not None else nest(settings or {})
        key = json.dumps([given, name, upgrade], sort_keys=True)
        if key not in self._rendered:  # many tests start from the same values
            self._rendered[key] = self.chart.render(
                given, name=name, namespace="prod", is_install=not upgrade, is_upgrade=upgrade
            )
        return Release(self._rendered[key])


@pytest.fixture(scope="session")
def ptft_chart() -> Iterator[ChartUnderTest]:
    """The chart of the checkout."""
    with helm.Chart.load(CHART) as chart:
        yield ChartUnderTest(chart)
