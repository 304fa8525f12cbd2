"""The chart, rendered by Helm's own SDK: no cluster, no helm binary."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "ptft"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
VALUE_FILES = [None, *EXAMPLES]  # None: the defaults alone


def name_of(file: Path | None) -> str:
    """An id for pytest."""
    return file.stem if file else "defaults"


class StrictLoader(yaml.SafeLoader):
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
        """The manifest of ``kind``, None where there is none."""
        found = [document for document in self.documents if document["kind"] == kind]
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
        """The spec of every pod: the Deployment's and the test's."""
        return [self.template["spec"], self.get("Pod")["spec"]]

    @property
    def server(self) -> dict[str, Any]:
        """The service's container."""
        return only(self.template["spec"]["containers"])

    @property
    def pull(self) -> dict[str, Any]:
        """The init container that pulls the model."""
        return only(self.template["spec"]["initContainers"])


def only(containers: list[dict[str, Any]]) -> dict[str, Any]:
    """The container of a pod that has one."""
    (container,) = containers
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

    def render(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        values: Mapping[str, Any] | None = None,
        name: str = "demo",
    ) -> Release:
        """Render with ``values`` or with dotted ``settings``.

        Raises:
            helm.HelmError: where schema or templates refuse them.
        """
        given = dict(values) if values is not None else nest(settings or {})
        return Release(self.chart.render(given, name=name, namespace="prod"))


@pytest.fixture(scope="session")
def ptft_chart() -> Iterator[ChartUnderTest]:
    """The chart of the checkout."""
    with helm.Chart.load(CHART) as chart:
        yield ChartUnderTest(chart)
