"""What a transformers text tower is called: by its model, wherever it lies."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ptft.model.transformers_tower import find_text
from tests.support import tiny


@pytest.mark.parametrize(
    ("place", "config", "expected"),
    [
        ("model", {}, "bert32x2"),
        ("final", {}, "bert32x2"),
        ("text", {}, "bert32x2"),
        ("all-MiniLM-L6-v2", {}, "all-MiniLM-L6-v2"),
        ("model", {"_name_or_path": "org/small-bert"}, "org/small-bert"),
        ("mine", {"_name_or_path": "/home/me/runs/1"}, "mine"),
        ("models--org--name/snapshots/0123abc", {}, "org/name"),
    ],
)
def test_title(place: str, config: dict[str, Any], expected: str, tmp_path: Path) -> None:
    folder = tmp_path / place
    shutil.copytree(tiny.hf_text_folder(tmp_path / "source", weights=False), folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    assert find_text(tiny.hf_section(folder)).title == expected


def test_the_model_is_named_by_it(tmp_path: Path) -> None:
    model = tiny.build(tiny.hf_section(tiny.hf_text_folder(tmp_path / "model")))
    assert model.spec.name == "test_efficientnet+bert32x2"
    assert model.spec.base == "bert32x2 without pooler.dense"
