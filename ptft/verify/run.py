"""A run: its recipe and its weights against what ``run.json`` records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, file_sha256, read_json, verify_files
from ptft.errors import DigestError, PtftError
from ptft.files.bounds import Bounds
from ptft.model_record import recorded_files
from ptft.recipe import load_foreign, recipe_digest
from ptft.recipe.publication import published_recipe
from ptft.verify.link import Artefact, Link, broken, holds, unchecked

__all__ = ["check_recipe_digest", "check_run", "published_digest"]


def check_run(target: str, run: Path, folder: Path) -> tuple[Artefact, list[Link]]:
    """The recipe against the recorded digest, and the weights of ``final/``.

    Args:
        run: its folder.
        folder: that holds the weights.

    Raises:
        ArtifactError: ``run.json`` cannot be read.
    """
    record = Bounds(read_json(run / RunFiles.RUN), str(run / RunFiles.RUN)).values
    recipe = str(record.get("recipe_digest") or "")
    links = [check_recipe_digest(target, run / RunFiles.RECIPE, recipe, RunFiles.RUN)]
    path, wanted = folder / RunFiles.WEIGHTS, record.get("weights_digest")
    if not path.is_file():
        links.append(broken("run", target, f"{path}: missing"))
        return Artefact(target, recipe=recipe, run=run), links
    weights = file_sha256(path)
    if folder != run / RunFiles.FINAL or wanted is None:
        links.append(unchecked("run", target, f"{RunFiles.RUN} records no digest of {folder.name}"))
    elif weights != wanted:
        links.append(
            broken("run", target, f"{path}: sha256 {weights}; {RunFiles.RUN} records {wanted}")
        )
    else:
        links.append(holds("run", target, f"weights {weights[:12]} as {RunFiles.RUN} records"))
        links.append(_check_files(target, folder, record))
    return Artefact(target, weights=weights, recipe=recipe, folder=folder, run=run), links


def _check_files(target: str, folder: Path, record: Mapping[str, Any]) -> Link:
    """All that the last model is opened from, the weights among it."""
    if not record.get("files"):
        why = f"a ptft from before wrote {RunFiles.RUN}: it records the weights alone"
        return unchecked("run files", target, why)
    try:
        files = recorded_files(record, folder.parent / RunFiles.RUN)
        verify_files(folder, files, record=RunFiles.RUN)
        present = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        if other := sorted(set(present) - files.keys()):
            raise DigestError(f"{folder / other[0]}: {RunFiles.RUN} does not record it")
    except PtftError as error:
        return broken("run files", target, error)
    return holds("run files", target, f"{len(files)} files as {RunFiles.RUN} records")


def check_recipe_digest(target: str, path: Path, recorded: str, record: str) -> Link:
    """The digest of a recipe against what ``record`` says of it."""
    if not recorded and not path.is_file():
        return unchecked("recipe", target, "none is recorded")
    try:
        found = recipe_digest(load_foreign(path))
    except PtftError as error:
        return broken("recipe", target, error)
    if found != recorded:
        detail = f"{path.name}: digest {found}; {record} records {recorded or 'none'}"
        return broken("recipe", target, detail)
    return holds("recipe", target, f"digest {found[:12]} as {record} records")


def published_digest(run: Path) -> str:
    """Digest of a run's recipe as an export publishes it.

    Raises:
        RecipeError: it cannot be read.
    """
    return recipe_digest(published_recipe(load_foreign(run / RunFiles.RECIPE))[0])
