"""What stands on a run's page."""

import json
from pathlib import Path

from PIL import Image

from ptft.artifact import RunFiles
from tests.support.pages import Read


def page(folder: Path) -> Read:
    return Read((folder / RunFiles.PAGE).read_text(encoding="utf-8"))


def pictures(folder: Path, count: int, **fields: str) -> Path:
    """A folder of pictures in two colours, with captions of their own."""
    folder.mkdir(parents=True)
    rows = []
    for index in range(count):
        colour = (255, 40 + index, 0) if index % 2 else (0, 40 + index, 255)
        Image.new("RGB", (40, 40), colour).save(folder / f"{index}.png")
        row = {"file_name": f"{index}.png", "text": f"number {index}", **fields}
        rows.append(json.dumps({**row, "label": ("blue", "red")[index % 2]}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder
