"""A bill of materials as CycloneDX 1.6 JSON (ECMA-424): what the image and a model are made of.

The same components give the same bytes: the serial number is made of the content, and the time is
the one that SOURCE_DATE_EPOCH declares.
"""

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Component", "bill", "licences", "pypi_component"]

Component = dict[str, Any]
"""As the schema has it: ``type``, ``name`` and ``bom-ref`` at least."""

_SPACE = uuid.UUID("5e0e55a2-27ae-5f4b-b9e4-5b0e2f5d1b1c")  # of the serial numbers made here
_NOT_SAID = frozenset({"", "unknown", "UNKNOWN", "other"})


def bill(
    subject: Component,
    components: Sequence[Component],
    *,
    depends: Mapping[str, Sequence[str]] | None = None,
    version: str,
) -> str:
    """The document.

    Args:
        subject: what the bill is of.
        components: what it is made of, each with a ``bom-ref`` of its own.
        depends: ``bom-ref`` -> those that it is made of; absent: the subject, of every component.
        version: of ptft, which wrote it.
    """
    if depends is None:
        depends = {subject["bom-ref"]: [one["bom-ref"] for one in components]}
    when = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    writer = {"type": "application", "name": "ptft", "version": version}
    values: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when)),
            "tools": {"components": [writer]},
            "component": subject,
        },
        "components": sorted(components, key=lambda one: str(one["bom-ref"])),
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(set(on))} for ref, on in sorted(depends.items())
        ],
    }
    content = json.dumps(values, sort_keys=True)
    values = {"serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, content)}", **values}
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def licences(spdx: str) -> list[dict[str, Any]]:
    """A licence by its SPDX id, its name, or the Hub's short name; [] where none is said."""
    if spdx.strip() in _NOT_SAID:
        return []
    known = _SPDX_OF_HUB.get(spdx.strip().lower(), spdx.strip())
    if known in _SPDX_IDS:
        return [{"license": {"id": known}}]
    return [{"license": {"name": known.splitlines()[0][:200]}}]


def pypi_component(name: str, version: str, licence: str) -> Component:
    """A package of the Python Package Index, by the rules of package URLs."""
    plain = name.lower().replace("_", "-").replace(".", "-")
    ref = f"pkg:pypi/{plain}@{version}"
    found: Component = {
        "type": "library",
        "bom-ref": ref,
        "name": name,
        "version": version,
        "purl": ref,
    }
    if said := licences(licence):
        found["licenses"] = said
    return found


_SPDX_OF_HUB = {
    **{name.lower(): name for name in ("MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC")},
    **{name.lower(): name for name in ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0")},
    **{name.lower(): name for name in ("PSF-2.0", "MPL-2.0", "HPND", "Unlicense")},
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "mit license": "MIT",
}
_SPDX_IDS = frozenset(_SPDX_OF_HUB.values())
