"""Fetch a model folder and hold every byte of it against what was recorded.

The Hub's client takes a damaged file of the right size for a good one; here the files that
``ptft.json`` lists are held against its digests, and ``ptft.json`` and the card against the ids
in the Hub's listing. Only files that ``ptft.json`` lists are fetched, and nothing is executed.
"""

import contextlib
import glob
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ptft import __version__
from ptft.artifact import PRECISIONS, FolderFiles, ModelInfo, read_model_info, verify_files
from ptft.errors import ArtifactError, DigestError, UsageError
from ptft.hub.names import check_file_name, git_ids, split_target
from ptft.hub.pulled import changed_since_pull, record_pulled
from ptft.hub.refusals import explained
from ptft.onnx.model import tower_file
from ptft.onnx.trial import try_model
from ptft.reach import hub_at_hand

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["pull_model"]


def pull_model(
    repo: str,
    dest: Path | None = None,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
) -> Path:
    """Fetch a model folder, verified.

    Args:
        repo: ``org/name`` or ``org/name@revision``: a branch, a tag or a commit.
        dest: where to put a copy; it appears whole or not at all. A folder that holds this very
            model already is left as it is. None: the folder in the Hub's cache.
        endpoint: of the Hub; None: HF_ENDPOINT's, else huggingface.co.
        token: None: that of ``hf auth login`` or HF_TOKEN, or none at all.
        cache_dir: None: that of HF_HUB_CACHE. Complete files in it are not fetched again, and
            under HF_HUB_OFFLINE they are all there is.

    Returns:
        ``dest``, or the folder in the cache (whose files are not to be changed).

    Raises:
        UsageError: ``repo`` has another form, or ``dest`` holds something else.
        ArtifactError: the repository holds no model folder, one with files of other kinds, or one
            that does not run within bounds (:mod:`ptft.onnx.trial`).
        DigestError: a byte is not the one that was recorded; the file is forgotten, so that the
            next pull fetches it again.
        HubError: the Hub refused or cannot be reached.
    """
    name, revision = split_target(repo)
    dest = None if dest is None else dest.expanduser().absolute()
    if dest is not None and _occupied(dest) and not (dest / FolderFiles.INFO).is_file():
        raise UsageError(f"{dest}: holds something else already; name another folder")

    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token, library_name="ptft", library_version=__version__)
    with hub_at_hand(api.endpoint):
        return _pull(api, name, revision, dest, cache_dir)


def _pull(
    api: "HfApi", name: str, revision: str | None, dest: Path | None, cache_dir: Path | None
) -> Path:
    with explained(name, api, revision=revision or "main", doing="pull"):
        commit = api.resolve_revision(name, revision=revision, cache_dir=cache_dir).resolved
    shown = f"{name}@{revision or commit[:12]}"
    # The record and the card first: the record says what else to fetch
    unhashed = (FolderFiles.INFO, FolderFiles.CARD)
    folder = _snapshot(api, name, commit, unhashed, cache_dir)
    listing = _listing(name, commit, cache_dir)
    if not (folder / FolderFiles.INFO).is_file():
        raise ArtifactError(
            f"{shown}: no model folder that ptft wrote: it has no {FolderFiles.INFO} "
            "(ptft export writes one, ptft push publishes it)"
        )
    _verify_listed(folder, (file for file in unhashed if file in listing), listing, shown)
    info = read_model_info(folder)
    for file in info.files:
        check_file_name(file, shown)
    _snapshot(api, name, commit, info.files, cache_dir)
    _verify_recorded(folder, info, listing, shown)
    _try(folder, info)
    if dest is None:
        return folder
    return _place(folder, info, dest)


def _try(folder: Path, info: ModelInfo) -> None:
    """Run what a service would, once and within bounds, before anybody relies on it.

    Raises:
        ArtifactError: an ONNX file or the tokenizer has what none may have, or takes too much.
    """
    for precision in PRECISIONS:
        towers = (FolderFiles.TEXT_ONNX, FolderFiles.VISION_ONNX)
        if all(tower_file(tower, precision) in info.files for tower in towers):
            try_model(folder, info, precision)


def _snapshot(
    api: "HfApi", repo: str, commit: str, names: Iterable[str], cache_dir: Path | None
) -> Path:
    """The cache's folder of a commit, with these files if the commit has them."""
    with explained(repo, api, revision=commit, doing="pull"):
        return Path(
            api.snapshot_download(
                repo,
                revision=commit,
                cache_dir=cache_dir,
                allow_patterns=[glob.escape(name) for name in names],
            )
        )


def _listing(repo: str, commit: str, cache_dir: Path | None) -> Mapping[str, str]:
    """name -> git id of each file of a commit, as the client kept them; empty where it has not."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(repo, revision=commit, cache_dir=cache_dir)
    except CachedRepoTreeNotFoundError:
        return {}
    return {entry.path: entry.blob_id for entry in tree}


def _verify_listed(
    folder: Path, names: Iterable[str], listing: Mapping[str, str], shown: str
) -> None:
    """Hold files that no digest covers against the ids in the Hub's listing.

    Raises:
        DigestError: naming the first that differs; it is forgotten.
    """
    for name in names:
        if listing[name] not in git_ids(folder / name):
            _forget(folder / name)
            raise DigestError(f"{shown}: {name}: damaged on the way; pull again")


def _verify_recorded(folder: Path, info: ModelInfo, listing: Mapping[str, str], shown: str) -> None:
    """Hold every file against ``ptft.json``.

    Raises:
        DigestError: naming the first that differs; all that differ are forgotten.
    """
    wrong: dict[str, str] = {}
    for name, recorded in info.files.items():
        path = folder / name
        try:
            verify_files(folder, {name: recorded})
        except DigestError:
            if listing and name not in listing:
                wrong[name] = "not on the Hub"
            elif path.is_file() and listing.get(name) in git_ids(path):
                wrong[name] = "replaced on the Hub"
            else:
                wrong[name] = "damaged on the way; pull again"
            _forget(path)
    if wrong:
        name, why = next(iter(wrong.items()))
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DigestError(
            f"{shown}: {name}{more}: not the bytes that {FolderFiles.INFO} records: {why}"
        )


def _forget(path: Path) -> None:
    """Remove a file from the cache: the name in the snapshot and the content it points to."""
    blob = path.resolve()
    for entry in (path, blob):
        with contextlib.suppress(OSError):  # a cache that may only be read stays as it is
            entry.unlink(missing_ok=True)


def _occupied(dest: Path) -> bool:
    return dest.exists() and not (dest.is_dir() and not any(dest.iterdir()))


def _place(folder: Path, info: ModelInfo, dest: Path) -> Path:
    """Copy the verified files to ``dest``, which appears whole or not at all.

    Raises:
        UsageError: ``dest`` holds another model.
        DigestError: it holds one that was changed; or the copy came out wrong.
    """
    if _occupied(dest):
        if changed := changed_since_pull(dest):
            raise DigestError(f"{dest}: {changed[0]}")
        if read_model_info(dest) != info:
            raise UsageError(f"{dest}: holds another model already; name another folder")
        verify_files(dest, info.files)
        return dest
    partial = dest.with_name(f".{dest.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()  # a new one: not through a link that somebody put there
        for name in (*info.files, FolderFiles.INFO, FolderFiles.CARD):
            if not (folder / name).is_file():
                continue  # a card is no must
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, partial / name)
        verify_files(partial, info.files)
        record_pulled(partial)
        partial.rename(dest)
    except OSError as error:
        raise ArtifactError(f"{dest}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return dest
