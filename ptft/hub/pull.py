"""Fetch a model folder and hold every byte of it against what was recorded.

The Hub's client takes a damaged file of the right size for a good one; here the files that
``ptft.json`` lists are held against its digests, and ``ptft.json``, the card, a signature and a
bill of materials against the ids in the Hub's listing. Only files that ``ptft.json`` lists are
fetched, of them only what a service reads where that is asked for, and nothing is executed.
"""

import contextlib
import glob
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ptft import __version__
from ptft.artifact import FolderFiles, ModelInfo, read_model_info, verify_files
from ptft.errors import ArtifactError, DigestError, UsageError
from ptft.hub.names import check_file_name, git_ids, split_target
from ptft.hub.placed import Wanted, check_dest, complete, lacking, part_place, place
from ptft.hub.refusals import explained
from ptft.onnx.served import precisions, served_files
from ptft.onnx.trial import try_model
from ptft.reach import hub_at_hand
from ptft.signing import check_signature

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["pull_model"]

_UNRECORDED = (FolderFiles.INFO, FolderFiles.CARD, FolderFiles.SIGNATURE, FolderFiles.BOM)


def pull_model(
    repo: str,
    dest: Path | None = None,
    *,
    serving: bool = False,
    precision: Sequence[str] = (),
    signed_by: Path | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
) -> Path:
    """Fetch a model folder, verified.

    Args:
        repo: ``org/name`` or ``org/name@revision``: a branch, a tag or a commit.
        dest: where to put a copy; it appears whole or not at all. A folder that holds this very
            model already is left as it is. None: the folder in the Hub's cache.
        serving: fetch only what a service reads, straight into ``dest`` (past the cache, but for
            what is there already), which says what it lacks (:mod:`ptft.onnx.served`).
        precision: of those files; none: every precision that the model has.
        signed_by: a public key (PEM); a model without its signature is refused.
        endpoint: of the Hub; None: HF_ENDPOINT's, else huggingface.co.
        token: None: that of ``hf auth login`` or HF_TOKEN, or none at all.
        cache_dir: None: that of HF_HUB_CACHE. Complete files in it are not fetched again, and
            under HF_HUB_OFFLINE they are all there is.

    Returns:
        ``dest``, or the folder in the cache (whose files are not to be changed).

    Raises:
        UsageError: ``repo`` has another form, ``dest`` holds something else or is not named where
            only a part is asked for, or the model has no such precision.
        ArtifactError: the repository holds no model folder, one with files of other kinds, or one
            that does not run within bounds (:mod:`ptft.onnx.trial`).
        DigestError: a byte is not the one that was recorded; the file is forgotten, so that the
            next pull fetches it again.
        SignatureError: the model is not signed with this key.
        HubError: the Hub refused or cannot be reached.
    """
    name, revision = split_target(repo)
    if precision and not serving:
        raise UsageError("--precision: goes with --for serving; a whole model has them all")
    dest = None if dest is None else dest.expanduser().absolute()
    if serving and dest is None:
        raise UsageError(f"{repo}: --for serving needs a folder to put the files into")
    if dest is not None:
        check_dest(dest)
    wanted = Wanted(serving, tuple(precision), signed_by)

    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token, library_name="ptft", library_version=__version__)
    with hub_at_hand(api.endpoint):
        return _pull(api, name, revision, dest, wanted, cache_dir)


def _pull(
    api: "HfApi",
    name: str,
    revision: str | None,
    dest: Path | None,
    wanted: Wanted,
    cache_dir: Path | None,
) -> Path:
    with explained(name, api, revision=revision or "main", doing="pull"):
        commit = api.resolve_revision(name, revision=revision, cache_dir=cache_dir).resolved
    shown = f"{name}@{revision or commit[:12]}"
    # The record and the card first: the record says what else to fetch
    folder = _snapshot(api, name, commit, _UNRECORDED, cache_dir)
    listing = _listing(name, commit, cache_dir)
    if not (folder / FolderFiles.INFO).is_file():
        raise ArtifactError(
            f"{shown}: no model folder that ptft wrote: it has no {FolderFiles.INFO} "
            "(ptft export writes one, ptft push publishes it)"
        )
    unrecorded = [file for file in _UNRECORDED if file in listing]
    _verify_listed(folder, unrecorded, listing, shown)
    info = read_model_info(folder)
    for file in info.files:
        check_file_name(file, shown)
    if wanted.signed_by is not None:  # before anything large is fetched, let alone run
        check_signature(folder, info, wanted.signed_by, where=shown)
    if wanted.serving and dest is not None:
        return _pull_part(api, name, commit, dest, info, wanted, listing, shown, cache_dir)
    _snapshot(api, name, commit, info.files, cache_dir)
    _verify_recorded(folder, info, info.files, listing, shown)
    _try(folder, info, precisions(info))
    if dest is None:
        return folder
    return place(folder, info, dest)


def _pull_part(
    api: "HfApi",
    name: str,
    commit: str,
    dest: Path,
    info: ModelInfo,
    wanted: Wanted,
    listing: Mapping[str, str],
    shown: str,
    cache_dir: Path | None,
) -> Path:
    """Fetch what a service reads into ``dest``, of which no copy is left in the cache."""
    names = served_files(info, wanted.precision, where=shown)
    if lacking(dest, info, names) == []:
        return dest
    beside = [one for one in _UNRECORDED if one in listing]
    with part_place(dest) as partial:
        missing = lacking(dest, info, names)  # whoever held the place before may have put it there
        if missing == []:
            shutil.rmtree(partial)
            return dest
        fetched = names if missing is None else missing
        for file in (*fetched, *beside):
            if file in listing or not listing:
                _fetch(api, name, commit, file, partial, cache_dir)
        _verify_recorded(partial, info, fetched, listing, shown)
        _verify_listed(partial, beside, listing, shown)
        if missing is None:
            _try(partial, info, wanted.precision or precisions(info))
        complete(partial, dest, info, wanted)
    return dest


def _fetch(
    api: "HfApi", repo: str, commit: str, name: str, folder: Path, cache_dir: Path | None
) -> None:
    """One file, out of the cache where it is there, else from the Hub and into the folder alone."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repo, name, cache_dir=cache_dir, revision=commit)
    if isinstance(cached, str):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with Path(cached).open("rb") as source, (folder / name).open("wb") as target:
            while piece := source.read(1 << 20):
                target.write(piece)
        return
    with explained(repo, api, revision=commit, doing="pull"):
        api.hf_hub_download(repo, name, revision=commit, local_dir=folder)


def _try(folder: Path, info: ModelInfo, chosen: Iterable[str]) -> None:
    """Run what a service would, once and within bounds, before anybody relies on it.

    Raises:
        ArtifactError: an ONNX file or the tokenizer has what none may have, or takes too much.
    """
    for precision in chosen:
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


def _verify_recorded(
    folder: Path,
    info: ModelInfo,
    names: Iterable[str],
    listing: Mapping[str, str],
    shown: str,
) -> None:
    """Hold files against ``ptft.json``.

    Raises:
        DigestError: naming the first that differs; all that differ are forgotten.
    """
    wrong: dict[str, str] = {}
    for name in names:
        path = folder / name
        try:
            verify_files(folder, {name: info.files[name]})
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
