"""Files that are made of others are up to date: what `make check` holds, too."""

from dataclasses import fields
from pathlib import Path

import yaml

from serving.settings import Settings

from .conftest import CHART, DEFAULTS
from .generated import BY_OTHER_VALUES, describe, files, leaves, settings_of_the_service, value_name


def test_files_are_up_to_date() -> None:
    assert files() == []


def test_every_setting_of_the_service_is_a_value() -> None:
    """One source for both: its names, defaults and relations."""
    known = settings_of_the_service()["settings"]
    ours = {field.name for field in fields(Settings)} - BY_OTHER_VALUES
    assert known.keys() == {value_name(name) for name in ours}
    assert known.keys() == DEFAULTS["serving"].keys() - {"keysSecret"}
    for field in fields(Settings):
        if isinstance(field.default, (int, float, str)) and field.name not in BY_OTHER_VALUES:
            assert known[value_name(field.name)]["default"] == field.default


def test_every_value_is_described() -> None:
    import json

    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    # what says all in its name, or stands beside what is described
    short = {"affinity", "nodeSelector", "tolerations", "priorityClassName"}
    bare = [key for key, _ in leaves(values, values) if not describe(schema, key)]
    allowed = ("probes.", "autoscaling.", "topologySpread.", "serviceAccount.", "ingress.")
    assert [key for key in bare if not key.startswith(allowed) and key not in short] == []
    assert Path(CHART / "files" / "service.json").exists()
