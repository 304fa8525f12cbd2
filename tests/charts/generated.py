"""What of the chart is made from something else: ``python -m tests.charts.generated [--check]``.

- ``files/service.json``: the service's settings, their variables, defaults and relations, so that
  the chart compares values with what the service will do;
- the table of ``README.md``: each value with its default and what the schema says of it;
- ``values.schema.json`` in one way of writing it.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from serving.drain import CLOSING_S
from serving.settings import PREFIX, RELATIONS, Settings

__all__ = ["files", "leaves", "settings_of_the_service", "value_name", "wanted"]

CHART = Path(__file__).resolve().parents[2] / "charts" / "ptft"
BY_OTHER_VALUES = {
    *("model", "model_digest", "model_signed_by", "keys_file", "index"),
    *("mirror_url", "mirror_share"),
}
"""Settings whose values are not in the section ``serving``."""

_WIDTH = 100
_TABLE = "| value | default | meaning |\n|---|---|---|\n"


def value_name(setting: str) -> str:
    """``max_work_s`` as the chart has it: ``maxWorkSeconds``."""
    head, *rest = re.sub(r"_s$", "_seconds", setting).split("_")
    return head + "".join(word.capitalize() for word in rest)


def settings_of_the_service() -> dict[str, Any]:
    """What the chart has to know of the service, see ``files/service.json``."""
    known = {
        value_name(field.name): {
            "variable": f"{PREFIX}{field.name.upper()}",
            "default": _plain(getattr(Settings(model=Path()), field.name)),
        }
        for field in fields(Settings)
        if field.name not in BY_OTHER_VALUES
    }
    relations = [
        {
            "value": value_name(one.value),
            "least": value_name(one.least),
            "times": one.times,
            "follows": value_name(one.follows) if one.follows else None,
        }
        for one in RELATIONS
    ]
    return {"settings": known, "relations": relations, "closingSeconds": CLOSING_S}


def _plain(default: Any) -> Any:
    return ",".join(map(str, default)) if isinstance(default, tuple) else default


def leaves(values: Any, shape: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each; what ``shape`` has as a list or an empty map is one value."""
    for key, value in values.items():
        if isinstance(shape.get(key), dict) and shape[key]:
            yield from leaves(value, shape[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def describe(schema: dict[str, Any], dotted: str) -> str:
    """What the schema says of a value: at its own place, or where its ``$ref`` leads."""
    node, above = schema, ""
    for part in dotted.split("."):
        while "$ref" in node:
            node = schema["definitions"][node["$ref"].split("/")[-1]]
        if "properties" not in node:  # an entry of a free map that has a default
            return above
        node = node["properties"][part]
        above = node.get("description", "")
    if not above and "$ref" in node:
        above = schema["definitions"][node["$ref"].split("/")[-1]].get("description", "")
    return str(above)


def write_table(schema: dict[str, Any], values: dict[str, Any]) -> str:
    """The README's table of every value."""
    rows = [
        f"| `{key}` | `{json.dumps(value)}` | {describe(schema, key)} |".replace("  |", " |")
        for key, value in leaves(values, values)
    ]
    return _TABLE + "\n".join(rows) + "\n"


def write_json(value: Any, indent: int = 0, lead: int = 0) -> str:
    """JSON with what fits on a line on one."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or lead + len(flat) < _WIDTH:
        return flat
    deeper, parts = indent + 2, []
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        name = f"{json.dumps(key)}: " if isinstance(value, dict) else ""
        parts.append(" " * deeper + name + write_json(entry, deeper, deeper + len(name)))
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{' ' * indent}{closing}"


def wanted() -> dict[Path, str]:
    """What each file should hold."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    readme = (CHART / "README.md").read_text()
    before, _, after = readme.partition(_TABLE)
    rest = re.sub(r"\A(\|.*\n)*", "", after)
    return {
        CHART / "values.schema.json": write_json(schema) + "\n",
        CHART / "files" / "service.json": write_json(settings_of_the_service()) + "\n",
        CHART / "README.md": before + write_table(schema, values) + rest,
    }


def files() -> list[Path]:
    """Those that are not as they should be."""
    return [
        path for path, text in wanted().items() if not path.exists() or path.read_text() != text
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write them, or say which are not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    stale, texts = files(), wanted()
    for path in stale:
        if not check:
            path.write_text(texts[path])
        what = "is not up to date: python -m tests.charts.generated" if check else "written"
        sys.stderr.write(f"{path.relative_to(CHART.parents[1])}: {what}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
