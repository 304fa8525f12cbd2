"""The manifests are what Kubernetes takes, whatever the values."""

from pathlib import Path
from typing import Any

import helm_python as helm
import jsonschema
import pytest

from .conftest import CHART, VALUE_FILES, ChartUnderTest, each_values_file, read_values
from .custom import KINDS, hold_custom
from .schemas import VERSIONS, hold


@each_values_file
def test_lint_has_nothing_to_say(file: Path | None) -> None:
    report = helm.lint(CHART, read_values(file), strict=True, kube_version="v1.30.0")
    assert report["total_charts_linted"] == 1
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] >= 2] == []


@pytest.mark.parametrize("version", VERSIONS)
@each_values_file
def test_manifests_fit_the_schemas_of_kubernetes(
    ptft_chart: ChartUnderTest, file: Path | None, version: str
) -> None:
    release = ptft_chart.render(values=read_values(file))
    held = [one for one in release.documents if one["kind"] not in KINDS]
    assert {"Deployment", "Service"} <= {manifest["kind"] for manifest in held}
    for manifest in held:
        hold(manifest, version)


@each_values_file
def test_manifests_of_others_fit_their_definitions(
    ptft_chart: ChartUnderTest, file: Path | None
) -> None:
    for manifest in ptft_chart.render(values=read_values(file)).documents:
        if manifest["kind"] in KINDS:
            hold_custom(manifest)
            with pytest.raises(jsonschema.ValidationError, match="unknown"):
                hold_custom({**manifest, "spec": {**manifest["spec"], "unknown": 1}})


def test_every_kind_is_rendered_by_a_file_of_values(ptft_chart: ChartUnderTest) -> None:
    kinds = {
        manifest["kind"]
        for file in VALUE_FILES
        for manifest in ptft_chart.render(values=read_values(file)).documents
    }
    written = {
        line.removeprefix("kind: ").strip()
        for template in (CHART / "templates").rglob("*.yaml")
        for line in template.read_text().splitlines()
        if line.startswith("kind: ")
    }
    assert kinds >= written


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_refuse_a_manifest_that_is_wrong(
    ptft_chart: ChartUnderTest, version: str
) -> None:
    manifest = ptft_chart.render().get("Deployment")
    hold(manifest, version)
    container: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    container["imagePullPolice"] = "Always"
    with pytest.raises(jsonschema.ValidationError, match="imagePullPolice"):
        hold(manifest, version)
