"""The bill of materials of a model folder, as CycloneDX 1.6 has it for machine learning.

It names the model by its digest, every file with its sha256, the data that it was trained on, what
it started from, its licence, what was measured, and the packages that wrote it: all that the folder
itself says, and nothing that is guessed. ``model.cdx.json`` is not in the folder's digest, which it
names.
"""

from pathlib import Path
from typing import Any

from ptft import __version__
from ptft.artifact import (
    FolderFiles,
    ModelInfo,
    read_json,
    read_model_info,
    verify_files,
    write_atomic,
)
from ptft.cyclonedx import Component, bill, licences, pypi_component
from ptft.files.bounds import Bounds
from ptft.model_record import read_mix, recorded_figures
from ptft.onnx.served import absent_on_purpose
from ptft.pages.markdown import card_metadata, metadata_licence
from ptft.recipe import DataSection, MixtureData, Recipe, ScenesData, load_foreign
from ptft.recipe.publication import public_names

__all__ = ["folder_bill", "write_bill"]

_ARCHITECTURE = "joint image-text encoder"


def write_bill(folder: Path) -> Path:
    """Write ``model.cdx.json`` of a model folder.

    Raises:
        ArtifactError, DigestError: it is none, or not as ``ptft.json`` records it.
    """
    path = folder / FolderFiles.BOM
    write_atomic(path, folder_bill(folder))
    return path


def folder_bill(folder: Path) -> str:
    """The document.

    Raises:
        ArtifactError, DigestError: it is no model folder, or not as ``ptft.json`` records it.
    """
    info = read_model_info(folder)
    absent = set(absent_on_purpose(folder, info))
    verify_files(folder, {name: entry for name, entry in info.files.items() if name not in absent})
    recipe = folder / FolderFiles.RECIPE
    data = _data_sets(load_foreign(recipe) if recipe.is_file() else None)
    card = _card(folder / FolderFiles.CARD)
    bases = _bases(folder, info, card)
    ref = f"model:{info.digest}"
    subject: Component = {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": info.name,
        "version": info.digest,
        "licenses": licences(metadata_licence(card)),
        "modelCard": _model_card(folder, info, data),
    }
    if not subject["licenses"]:
        del subject["licenses"]  # the card names none
    if bases:
        subject["pedigree"] = {"ancestors": bases}
    files = [_file(name, entry) for name, entry in info.files.items()]
    wrote = [pypi_component(name, number, "") for name, number in info.versions.items()]
    depends = {ref: [one["bom-ref"] for one in [*files, *data]]}
    return bill(subject, [*files, *data, *wrote], depends=depends, version=__version__)


def _file(name: str, entry: dict[str, Any]) -> Component:
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": str(entry["sha256"])}],
    }


def _data_sets(recipe: Recipe | None) -> list[Component]:
    names = dict.fromkeys(_names(recipe.data)) if recipe is not None else {}
    return [
        {
            "type": "data",
            "bom-ref": f"data:{name}",
            "name": name,
            "data": [{"type": "dataset", "name": name}],
        }
        for name in names
    ]


def _names(section: DataSection) -> list[str]:
    match section:
        case MixtureData():
            return [name for part in section.parts for name in _names(part.data)]
        case ScenesData():
            return [f"scenes drawn by ptft, style {section.style}, seed {section.seed}"]
        case _:
            return public_names(section)


def _card(path: Path) -> dict[str, Any]:
    return card_metadata(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _bases(folder: Path, info: ModelInfo, card: dict[str, Any]) -> list[Component]:
    """What the weights started from: of a mix its parents, else what the card names."""
    if FolderFiles.MIX in info.files and (folder / FolderFiles.MIX).is_file():
        return [
            {
                "type": "machine-learning-model",
                "bom-ref": f"base:{number}",
                "name": parent.hub or Path(parent.name).name,
                "hashes": [{"alg": "SHA-256", "content": parent.weights_digest}],
            }
            for number, parent in enumerate(read_mix(folder).parents)
        ]
    given = card.get("base_model") or []
    return [
        {"type": "machine-learning-model", "bom-ref": f"base:{number}", "name": str(name)}
        for number, name in enumerate([given] if isinstance(given, str) else given)
    ]


def _model_card(folder: Path, info: ModelInfo, data: list[Component]) -> dict[str, Any]:
    outputs = [{"format": f"embedding of {info.embed_dim} float32"}]
    if info.task == "classify":
        outputs.append({"format": f"probabilities of {len(info.classes)} classes"})
    if info.task == "detect":
        outputs.append({"format": "boxes, each with a probability of each text"})
    height, width = info.image_size
    parameters: dict[str, Any] = {
        "task": info.task,
        "architectureFamily": _ARCHITECTURE,
        "inputs": [
            {"format": f"image, {width} x {height} pixels"},
            {"format": f"text, up to {info.context_length} tokens"},
        ],
        "outputs": outputs,
    }
    if data:
        parameters["datasets"] = [{"ref": one["bom-ref"]} for one in data]
    card: dict[str, Any] = {"modelParameters": parameters}
    path = folder / FolderFiles.METRICS
    said = Bounds(read_json(path), str(path)).values if path.is_file() else {}
    figures = recorded_figures(said.get("evaluation", {}), f"{path}: evaluation")
    measured = [
        {"type": str(key), "value": str(value), "slice": str(name)}
        for name, values in figures.items()
        for key, value in values.items()
        if isinstance(value, int | float)
    ]
    if measured:
        card["quantitativeAnalysis"] = {"performanceMetrics": measured}
    return card
