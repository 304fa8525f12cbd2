"""Samples with several classes each, in a folder and drawn."""

import json
from pathlib import Path
from typing import Any

from ptft.recipe import FolderData
from tests.support.shards import picture

SEVERAL: dict[str, Any] = {
    "data": {"kind": "scenes", "size": 32, "train": 80, "val": 24, "test": 24, "labels": "many"},
    "objective__kind": "classify",
    "evaluate": [
        {"kind": "classify"},
        {"kind": "classify", "name": "last", "split": "test"},
        {"kind": "zero_shot", "split": "test"},
    ],
}


def json_folder(root: Path, labels: list[Any], split: str = "train") -> FolderData:
    root.mkdir(parents=True)
    lines = []
    for number, one in enumerate(labels):
        (root / f"{number}.png").write_bytes(picture(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "kind": one}))
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return FolderData(label="kind", labels="many", **{split: str(root)})
