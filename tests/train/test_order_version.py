"""A run of more samples than an array's order holds goes on in the order that it began with."""

import json
from pathlib import Path

import pytest

from ptft.artifact import RunFiles
from ptft.errors import ArtifactError
from ptft.runs import folder as run_folder
from tests.support.runs import interrupt, largest_difference, run

MANY = {"data__train": (1 << 20) + 3}


def test_a_run_of_before_ends_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(run_folder, "ORDER", 1)
        run(tmp_path / "whole", **MANY)
        interrupt(monkeypatch, tmp_path / "cut", 4, **MANY)
    path = tmp_path / "cut" / RunFiles.RUN
    record = json.loads(path.read_text())
    assert record.pop("order") == 1  # records of that time have no such key
    path.write_text(json.dumps(record))
    assert run(tmp_path / "cut", resume=True, **MANY).finished
    assert largest_difference(tmp_path / "whole", tmp_path / "cut") == 0.0
    assert json.loads(path.read_text())["order"] == 1
    interrupt(monkeypatch, tmp_path / "new", 4, **MANY)
    assert run(tmp_path / "new", resume=True, **MANY).finished
    assert json.loads((tmp_path / "new" / RunFiles.RUN).read_text())["order"] == 2
    assert largest_difference(tmp_path / "whole", tmp_path / "new") > 0.0
    record["order"] = 3
    path.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="order: Input should be 1 or 2"):
        run(tmp_path / "cut", resume=True, **MANY)
