"""Brings a run back from its mirror, where the disk here has none, or an older state of it."""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ptft.artifact import RunFiles
from ptft.errors import ArtifactError, DigestError, MirrorError, UsageError
from ptft.recipe import Recipe, load_foreign
from ptft.runs.changes import recipe_changes
from ptft.runs.folder import lock_run
from ptft.runs.mirror.manifest import Manifest, object_name
from ptft.runs.mirror.newest import read_manifests
from ptft.runs.mirror.snapshot import position_of
from ptft.runs.mirror.store import MirrorStore, free_bytes

__all__ = ["bring_back"]

_SHOWN = 20  # changed keys that are told at once
_WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds between questions to a store that does not answer
T = TypeVar("T")
_UNBEGUN = (RunFiles.LOCK, RunFiles.RECIPE)


def bring_back(
    recipe: Recipe, folder: Path, *, resume: bool, accept: bool, say: Callable[[str], object]
) -> bool:
    """Put the newest whole copy of a mirrored run into its folder, if that is further than what
    lies there; what lay there is kept beside it.

    Args:
        recipe: with ``run.mirror``.
        folder: of the run here.
        resume: False: the run is to begin, and a mirror of one is an error.
        accept: bring a run of another recipe.
        say: takes a line about what was brought, and about each copy that is not whole.

    Returns:
        Whether it did.

    Raises:
        UsageError: a run is to begin, and one is mirrored there; or it is one of another recipe.
        MirrorError: the store does not answer, no copy is whole, or the disk here has no room.
    """
    assert recipe.run.mirror is not None
    store = MirrorStore(recipe.run.mirror)
    manifests = _asked(lambda: read_manifests(store, say))
    if not manifests:
        return False
    if not resume:
        raise UsageError(
            f"run.mirror: {store.url!r}: a run is mirrored there already; --resume auto goes on "
            "with it, another address is for another run"
        )
    here = position_of(folder)
    further = [manifest for manifest in manifests if manifest.position > here]
    if not further:
        return False
    part = folder.absolute().with_name(f".{folder.absolute().name}.fetched")
    for manifest in further:
        try:
            _asked(lambda: _fetch(store, manifest, part, [RunFiles.RECIPE]))  # noqa: B023
            if not accept:
                _check_recipe(recipe, part / RunFiles.RECIPE, store)
            _asked(lambda: _fetch(store, manifest, part, manifest.files))  # noqa: B023
        except ArtifactError as error:
            shutil.rmtree(part, ignore_errors=True)
            say(f"{error}; going on from the copy before")
            continue
        _put(part, folder, say)
        say(f"{folder}: brought from {store.url}: {len(manifest.files)} files of {manifest.at}")
        return True
    if (folder / RunFiles.RUN).is_file():
        return False
    raise MirrorError(
        f"run.mirror: {store.url}: none of {len(manifests)} copies is whole; allowed: another "
        "address, which begins a new run"
    )


def _asked(work: Callable[[], T]) -> T:
    """What a store gives, asked again where it does not answer."""
    for wait in _WAITS:
        try:
            return work()
        except MirrorError:
            time.sleep(wait)
    return work()


def _check_recipe(recipe: Recipe, path: Path, store: MirrorStore) -> None:
    """Refuse the run of another recipe before all of it is brought here."""
    changes = recipe_changes(recipe, load_foreign(path), places=False)
    if changes:
        shutil.rmtree(path.parent)
        raise UsageError(
            f"run.mirror: {store.url!r}: a run of another recipe:",
            *(f"  {change}" for change in changes[:_SHOWN]),
            "  allowed: the recipe as it was, --accept-changes, or another address",
        )


def _fetch(store: MirrorStore, manifest: Manifest, part: Path, names: Iterable[str]) -> None:
    shutil.rmtree(part, ignore_errors=True)
    if manifest.size > free_bytes(part.parent):
        raise UsageError(
            f"{part.parent}: no room for the {manifest.size:,} bytes of {store.url}; allowed: a "
            "disk with room (run.dir)"
        )
    part.mkdir(parents=True)
    for name in names:
        entry = manifest.files.get(name)
        if entry is None:
            raise DigestError(f"{store.url}: a copy without {name}")
        store.fetch(object_name(entry["sha256"]), part / name, **entry)


def _put(part: Path, folder: Path, say: Callable[[str], object]) -> None:
    """Put what was fetched in its place; a run that lies there is kept beside it."""
    if folder.exists():
        names = {path.name for path in folder.iterdir() if not path.name.endswith(".partial")}
        if not names <= set(_UNBEGUN) and not (folder / RunFiles.RUN).is_file():
            shutil.rmtree(part)
            raise UsageError(f"run.dir: {str(folder)!r}: something is there that is no run")
        with lock_run(folder):  # nobody trains there
            kept = _beside(folder)
            folder.rename(kept)
        if names <= set(_UNBEGUN):
            shutil.rmtree(kept)
        else:
            say(f"{folder}: its mirror is further; what was here is in {kept}")
    part.rename(folder)


def _beside(folder: Path) -> Path:
    tried: Sequence[Path] = [folder.with_name(f"{folder.name}.before-{n}") for n in range(1, 1000)]
    return next(path for path in tried if not path.exists())
