"""Small sets of pictures with boxes, as annotation tools write them."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from ptft.data import SampleSet, open_split
from ptft.recipe.data import BoxesData

__all__ = ["coco", "opened", "picture", "voc", "yolo"]


def picture(path: Path, size: tuple[int, int] = (40, 30), **saved: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 10, 10)).save(path, **saved)


def opened(**section: Any) -> SampleSet:
    return open_split(BoxesData(**section), "train")


def coco(path: Path, **changes: Any) -> str:
    picture(path.parent / "images" / "a.png")
    picture(path.parent / "images" / "b.png")
    values = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 9, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 10], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
        **changes,
    }
    path.write_text(json.dumps(values))
    return str(path)


_OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{0}</xmin>
<ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def voc(folder: Path, objects: list[tuple[Any, ...]], *, size: str = "") -> str:
    picture(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    body = "".join(
        _OBJECT.format(*box, name=name, difficult=difficult) for name, difficult, *box in objects
    )
    text = f"<annotation><filename>a.jpg</filename>{size}{body}</annotation>"
    (folder / "Annotations" / "a.xml").write_text(text)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    return str(folder / "ImageSets" / "Main" / "train.txt")


def yolo(folder: Path, lines: str | None, names: str = "names: [cat, dog]") -> str:
    picture(folder / "images" / "train" / "a.png")
    (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
    if lines is not None:
        (folder / "labels" / "train" / "a.txt").write_text(lines)
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\n{names}\n")
    return str(folder / "data.yaml")
