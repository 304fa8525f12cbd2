"""A built-in recipe at a size that a CPU steps in a second: same objective, same adaptation, same
evaluations and data kinds, but a tiny model of the family and a handful of pictures drawn here.
"""

import io
import json
import tarfile
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from ptft.model import save_model
from ptft.recipe import (
    ArchModel,
    BoxesData,
    ClassifyObjective,
    DataSection,
    DetectObjective,
    FolderData,
    MixtureData,
    Recipe,
    ScenesData,
    TableData,
    TowersModel,
    read_towers,
)
from ptft.recipe.load import parse_recipe
from ptft.recipe.optim import LBFGS
from tests.support.tiny import arch_section, build, hf_text_folder, towers_section

__all__ = ["reduce"]

_BATCH = 4
_COUNTS = {"train": 20, "val": 6, "test": 6}
_SIDE = 32


def reduce(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe for one step of a few samples in ``folder``; nothing is fetched."""
    whole = recipe.model_dump(mode="json", by_alias=True)
    whole["model"], whole["init"] = _model(recipe, folder)
    data = {"": recipe.data, **{str(i): e.data for i, e in enumerate(recipe.evaluate) if e.data}}
    made = {
        key: _data(section, recipe, _uses(recipe, key), folder / f"data{key}")
        for key, section in data.items()
    }
    whole["data"] = made[""]
    for index, item in enumerate(whole["evaluate"]):
        item["data"] = made.get(str(index))
        item["batch"] = _BATCH
        if item["kind"] == "probe":
            item["c"] = 1.0  # choosing one would take longer than all the rest
    batch = _COUNTS["train"] if recipe.optim.optimizer == LBFGS else _BATCH
    whole["optim"] |= {
        "global_batch": batch,
        "samples_seen": batch,
        "epochs": None,
        "precision": "fp32",  # nothing is worth measuring here
    }
    if whole["objective"].get("image_size") is not None:
        whole["objective"]["image_size"] = 2 * _SIDE
    whole["early_stop"] = None  # the last step is what is looked at
    whole["run"] |= {
        "dir": str(folder / "run"),
        "device": "cpu",
        "threads": None,
        "workers": 0,
        "trackers": [],
    }
    return parse_recipe(whole, where=f"{recipe.name}, reduced")


def _model(recipe: Recipe, folder: Path) -> tuple[dict | None, dict | None]:
    """A model section without pretrained weights, or the model folder to start from."""
    if recipe.model is None:
        save_model(build(towers_section()), folder / "base")
        return None, {"from": str(folder / "base")}
    tiny = _arch(recipe.model) if isinstance(recipe.model, ArchModel) else _towers(recipe, folder)
    return tiny.model_dump(mode="json"), None


def _arch(model: ArchModel) -> ArchModel:
    if "siglip" in model.name.lower():
        return arch_section("tiny-siglip", image_size=_SIDE)
    return arch_section("tiny-resnet" if model.name.startswith("RN") else "tiny-vit")


def _towers(recipe: Recipe, folder: Path) -> TowersModel:
    model = recipe.model
    assert isinstance(model, TowersModel)
    families = {"vit": "test_vit", "resnet": "test_resnet", "mobilenetv2": "mobilenetv2_035"}
    image = next((tiny for part, tiny in families.items() if part in model.image), None)
    changes: dict[str, Any] = {
        "image": image or "test_efficientnet",
        "image_weights": None,
        "image_size": _SIDE,
    }
    if model.image_projection == "none":
        changes["embed_dim"] = {"test_vit": 64, "mobilenetv2_035": 1280}[str(image)]
    if isinstance(model.text, str):
        changes["text"] = str(hf_text_folder(folder / "bert"))
    else:
        changes["text"] = {**model.text.model_dump(), "width": 32, "layers": 1, "heads": 2}
    return TowersModel(**{**model.model_dump(), **changes})


def _uses(recipe: Recipe, key: str) -> set[str]:
    """What a data section is read for: captions, labels."""
    items = [e for i, e in enumerate(recipe.evaluate) if (str(i) if e.data else "") == key]
    uses = {"captions" if item.kind == "retrieval" else "labels" for item in items}
    if key == "" and not isinstance(recipe.objective, DetectObjective):
        if isinstance(recipe.objective, ClassifyObjective):
            uses.add("labels")
        if "text" in read_towers(recipe.objective):
            uses.add("captions")
    return uses


def _data(section: DataSection, recipe: Recipe, uses: set[str], folder: Path) -> dict[str, Any]:
    """The section over pictures drawn here, with the fields that its templates and label name."""
    values = section.model_dump(mode="json")
    if isinstance(section, ScenesData):
        return {**values, "size": _SIDE, **_COUNTS}
    if isinstance(section, MixtureData):
        for index, part in enumerate(section.parts):
            place = folder.with_name(f"{folder.name}-{index}")
            values["parts"][index]["data"] = _data(part.data, recipe, uses, place)
        return values
    folder.mkdir()
    if isinstance(section, BoxesData):
        return {**values, "format": "coco", "images": None, **_boxes(section, folder)}
    classes = section.classes
    if isinstance(classes, str):
        (folder / "classes.txt").write_text("one\nother\nthird\n")
        values["classes"] = str(folder / "classes.txt")
    names = classes if isinstance(classes, list) else ["one", "other"]
    fields = {
        name for text in section.captions for _, name, _, _ in Formatter().parse(text) if name
    }
    for split, count in _COUNTS.items():
        if values[split] is None:
            continue
        samples = []
        for index in range(count):
            sample: dict[str, Any] = {
                name: f"{name} {split} {index}" for name in fields - {"class"}
            }
            if "captions" in sample:  # several
                sample["captions"] = [sample["captions"], f"the {index}th of {split}"]
            label = index % 2
            samples.append((_picture(label), sample if "captions" in uses else {}, label))
        if "labels" not in uses:
            samples = [(picture, sample, None) for picture, sample, _ in samples]
        values[split] = _write(section, samples, names, folder / split)
    return values


def _boxes(section: BoxesData, folder: Path) -> dict[str, str]:
    """COCO's JSON of each split, a box in every picture."""
    written = {}
    for split, count in _COUNTS.items():
        if getattr(section, split) is None:
            continue
        images, boxes = [], []
        for index in range(count):
            (folder / f"{split}{index}.png").write_bytes(_picture(index % 2))
            images.append({"id": index, "file_name": f"{split}{index}.png"})
            box = {"image_id": index, "category_id": index % 2, "bbox": [8, 8, 20, 24]}
            boxes.append({"id": index, **box})
        values = {
            "images": images,
            "annotations": boxes,
            "categories": [{"id": 0, "name": "one"}, {"id": 1, "name": "other"}],
        }
        (folder / f"{split}.json").write_text(json.dumps(values))
        written[split] = str(folder / f"{split}.json")
    return written


def _picture(label: int) -> bytes:
    rng = np.random.default_rng(label)
    pixels = rng.integers(0, 255, (40, 48, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def _write(
    section: DataSection,
    samples: list[tuple[bytes, dict[str, Any], int | None]],
    names: list[str],
    path: Path,
) -> str:
    """The split on disk in the section's kind; what the recipe names for it."""
    label_field = None if isinstance(section, ScenesData) else section.label
    if isinstance(section, TableData):
        rows = [
            {**fields, section.image or "": {"bytes": picture}, label_field or "label": label}
            for picture, fields, label in samples
        ]
        if section.image is None:
            rows = [{key: value for key, value in row.items() if key} for row in rows]
            lines = "".join(f"{json.dumps(row)}\n" for row in rows)
            Path(f"{path}.jsonl").write_text(lines, encoding="utf-8")
            return f"{path}.jsonl"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), f"{path}.parquet")
        return f"{path}.parquet"
    if isinstance(section, FolderData):
        return _write_folder(samples, names, label_field, path)
    with tarfile.open(f"{path}-0.tar", "w") as tar:
        for index, (picture, fields, label) in enumerate(samples):
            members = {"png": picture}
            if label is not None and label_field is None:
                members["cls"] = str(label).encode()
            elif label is not None:
                fields = {**fields, str(label_field): label}
            if "txt" in fields:
                members["txt"] = fields.pop("txt").encode()
            if fields:
                members["json"] = json.dumps(fields).encode()
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{index:04d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return f"{path}-*.tar"


def _write_folder(
    samples: list[tuple[bytes, dict[str, Any], int | None]],
    names: list[str],
    label_field: str | None,
    path: Path,
) -> str:
    rows = []
    for index, (picture, fields, label) in enumerate(samples):
        by_class = label is not None and label_field is None
        name = f"{names[label]}/{index}.png" if by_class and label is not None else f"{index}.png"
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(picture)
        if label is not None and label_field is not None:
            fields = {**fields, label_field: label}
        if fields:
            rows.append(json.dumps({"file_name": name, **fields}))
    if rows:
        (path / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return str(path)
