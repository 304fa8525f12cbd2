"""A model that was measured, and what its artefact records of where it came from."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptft.artifact import FolderFiles, read_model_info
from ptft.beside.box_part import BoxPart
from ptft.beside.class_part import ClassPart
from ptft.model_record import MixRecord, read_mix
from ptft.model_source import (
    HubRevision,
    LocalSource,
    Mix,
    ModelFolder,
    fetch_source,
    finished_run,
    resolve,
)
from ptft.recipe.publication import public_place
from ptft.report.neighbours.record import Answer
from ptft.report.throughput import duration
from ptft.runs.folder import read_run

__all__ = ["MeasuredModel", "measured_model"]


@dataclass(frozen=True)
class MeasuredModel:
    """One of the models on a page.

    Attributes:
        name: what people call it.
        place: what it was read from, as others may see it.
        figures: of each evaluation by its name, see :func:`ptft.evaluate.evaluate`.
        answers: what it found nearest, by the evaluation's name.
        origins: digests and what else its artefact records, by their names.
        command: what takes it on: it is served, exported, or pulled.
        classes: what it said class by class, by the evaluation's name.
        boxes: what it found in pictures, likewise.
    """

    name: str
    place: str
    figures: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, list[Answer]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    classes: Mapping[str, ClassPart] = field(default_factory=dict)
    boxes: Mapping[str, BoxPart] = field(default_factory=dict)


def measured_model(
    source: str | Path,
    figures: Mapping[str, Mapping[str, Any]],
    answers: Mapping[str, list[Answer]],
    classes: Mapping[str, ClassPart] | None = None,
    boxes: Mapping[str, BoxPart] | None = None,
) -> MeasuredModel:
    """Put what was measured beside what the artefact says of itself.

    Raises:
        ModelError, HubError, ArtifactError: nothing can be read there.
    """
    found = fetch_source(source)
    place = public_place(str(source))
    name, command = found.label, f"ptft export {shlex.quote(place)} models/mine"
    if isinstance(resolve(source), HubRevision):
        command = f"ptft pull {shlex.quote(place)} models/mine"
    elif isinstance(found, ModelFolder):
        name = read_model_info(found.folder).name
        command = f"PTFT_MODEL={shlex.quote(place)} bentoml serve serving.service:Ptft"
    origins = _origins(found)
    parts = (classes or {}, boxes or {})
    return MeasuredModel(name, place, figures, answers, origins, command, *parts)


def _origins(source: LocalSource) -> dict[str, str]:
    """What is recorded, the first of the chain first; nothing of a model that is no end of one."""
    if isinstance(source, ModelFolder):
        info = read_model_info(source.folder)
        mix = read_mix(source.folder) if (source.folder / FolderFiles.MIX).is_file() else None
        digests = {
            "recipe digest": info.recipe_digest,
            "weights digest": info.weights_digest,
            "model digest": info.digest,
        }
        return {**_mixed(mix), **{name: digest for name, digest in digests.items() if digest}}
    if isinstance(source, Mix):
        mix = read_mix(source.folder)
        return {**_mixed(mix), "weights digest": mix.weights_digest}
    run = finished_run(source)
    if run is None:
        return {}
    record = read_run(run)
    return {
        "trained on": f"{record.seen:,} samples in {duration(record.seconds)}",
        "recipe digest": record.recipe_digest,
        "weights digest": record.weights_digest or "not recorded",
    }


def _mixed(mix: MixRecord | None) -> dict[str, str]:
    if mix is None:
        return {}
    return {"mixed of": ", ".join(f"{parent.share:.0%} {parent.name}" for parent in mix.parents)}
