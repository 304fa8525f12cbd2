"""The schemas that a manifest is held against: Kubernetes' own, of one version each."""

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from referencing import Registry, Resource

__all__ = ["VERSIONS", "hold", "load_definitions"]

VERSIONS = tuple(f"1.{minor}" for minor in range(30, 38))
"""Of Kubernetes, that the chart is held to."""

_FOLDER = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def hold(manifest: dict[str, Any], version: str) -> None:
    """Hold a manifest against the schema of its kind.

    Raises:
        jsonschema.ValidationError: it does not fit, unknown keys included.
        FileNotFoundError: that version of Kubernetes has no such kind.
    """
    kind, api = manifest["kind"], manifest["apiVersion"]
    _validator(str(kind), str(api), version).validate(manifest)


@functools.cache
def _validator(kind: str, api: str, version: str) -> jsonschema.Draft202012Validator:
    group, _, of_group = api.rpartition("/")
    name = f"{group.split('.')[0]}-{of_group}" if group else of_group
    schema = json.loads((_folder(version) / f"{kind.lower()}-{name}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=_registry(version))


@functools.cache
def _registry(version: str) -> Registry[Any]:
    return Resource.from_contents(_definitions(version)) @ Registry()


@functools.cache
def _definitions(version: str) -> dict[str, Any]:
    return dict(json.loads((_folder(version) / "_definitions.json").read_text()))


def load_definitions(version: str = VERSIONS[0]) -> dict[str, Any]:
    """Every type of the API, by its long name."""
    return dict(_definitions(version)["$defs"])


def _folder(version: str) -> Path:
    return _FOLDER / f"v{version}.0-local-strict"
