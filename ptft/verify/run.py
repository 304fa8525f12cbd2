"""A run: its recipe and its weights against what ``run.json`` records."""

from pathlib import Path

from ptft.artifact import RunFiles, file_sha256, read_json
from ptft.errors import PtftError
from ptft.recipe import load_foreign, recipe_digest
from ptft.recipe.publication import published_recipe
from ptft.verify.link import Artefact, Link, broken, holds, unchecked

__all__ = ["check_recipe", "check_run", "published_digest"]


def check_run(target: str, run: Path, folder: Path) -> tuple[Artefact, list[Link]]:
    """The recipe against the recorded digest, and the weights of ``final/``.

    Args:
        run: its folder.
        folder: that holds the weights.

    Raises:
        ArtifactError: ``run.json`` cannot be read.
    """
    record = read_json(run / RunFiles.RUN)
    recipe = str(record.get("recipe_digest") or "")
    links = [check_recipe(target, run / RunFiles.RECIPE, recipe, RunFiles.RUN)]
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
    return Artefact(target, weights=weights, recipe=recipe, folder=folder, run=run), links


def check_recipe(target: str, path: Path, recorded: str, record: str) -> Link:
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
