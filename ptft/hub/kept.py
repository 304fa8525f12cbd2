"""A folder of several models, each pulled once and read by many: a volume that pods share.

Each lies in a folder of its own, named by repository and revision. Those that were asked for last
stay, so many of them; and where the Hub is away, what is there is what there is.
"""

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ptft.artifact import FolderFiles, read_model_info
from ptft.errors import ArtifactError, HubError, UsageError
from ptft.hub.names import split_target
from ptft.hub.placed import lacking
from ptft.hub.pull import pull_model
from ptft.hub.refusals import is_away
from ptft.onnx.served import served_files
from ptft.reach import why_unreachable
from ptft.signing import check_signature
from ptft.speech import tell, warn

__all__ = ["kept_name", "pull_kept"]

_REMOVED = ".removed"


def kept_name(target: str) -> str:
    """The folder of a model among others: ``org/name@revision`` -> ``org--name@revision``.

    Raises:
        UsageError: it has another form, no revision, or one that is no name of a folder.
    """
    repo, revision = split_target(target)
    if revision is None or "/" in revision:
        raise UsageError(f"{target}: --keep needs a revision without /: org/name@v1.0, or a commit")
    return f"{repo.replace('/', '--')}@{revision}"


def pull_kept(
    target: str,
    root: Path,
    keep: int,
    *,
    serving: bool = False,
    precision: Sequence[str] = (),
    signed_by: Path | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
) -> Path:
    """Fetch a model into a folder of several, and remove those that were asked for longest ago.

    Where the Hub does not answer, or only with an error of its own, a model that is there whole is
    taken, and that is said; one that the Hub refuses is not.

    Args:
        target: ``org/name@revision``.
        root: the folder of the models. What ``pull_kept`` did not put there stays.
        keep: how many stay, this one among them; at least 1.
        serving, precision, signed_by, endpoint, token, cache_dir: as of
            :func:`ptft.hub.pull_model`.

    Returns:
        The model's folder below ``root``.

    Raises:
        UsageError, ArtifactError, DigestError, SignatureError, HubError: as ``pull_model``; the Hub
            is away and the model not there; or ``target`` has no revision.
    """
    if keep < 1:
        raise UsageError(f"--keep {keep}: allowed: 1 or more")
    root = root.expanduser().absolute()
    place = root / kept_name(target)
    try:
        if reason := why_unreachable(endpoint):
            raise HubError(f"{target}: {reason}")
        pull_model(
            target,
            place,
            serving=serving,
            precision=precision,
            signed_by=signed_by,
            endpoint=endpoint,
            token=token,
            cache_dir=cache_dir,
        )
    except HubError as error:
        if error.__cause__ is not None and not is_away(error):
            raise
        _take_what_is_there(place, error, precision if serving else None, signed_by)
    try:
        os.utime(place)
        _remove_others(root, place, keep)
    except OSError as error:
        raise ArtifactError(f"{root}: cannot be written: {error.strerror or error}") from error
    return place


def _take_what_is_there(
    place: Path, error: HubError, precision: Sequence[str] | None, signed_by: Path | None
) -> None:
    """Hold a model that was pulled before to its record, and say that it is the one.

    Args:
        precision: of the files that a service reads; None: all files are needed.
    """
    if not (place / FolderFiles.INFO).is_file():
        others = ", ".join(one.name for one in _models(place.parent)) or "no model"
        raise HubError(f"{error}; {place.parent} has {others}") from error
    info = read_model_info(place)
    if signed_by is not None:
        check_signature(place, info, signed_by)
    names = list(info.files) if precision is None else served_files(info, precision)
    if missing := lacking(place, info, names):
        raise HubError(f"{error}; {place} is there without {missing[0]}") from error
    warn(f"{error}; {place.name} is there whole, of {_asked(place)}: {info.digest}")


def _remove_others(root: Path, place: Path, keep: int) -> None:
    """Those beyond the number, and what a removal before this one left."""
    for left in root.glob(f".*{_REMOVED}"):
        shutil.rmtree(left)
    others = sorted((one for one in _models(root) if one != place), key=_when, reverse=True)
    for one in others[keep - 1 :]:
        tell(f"{one.name}: removed, asked for last on {_asked(one)}; {keep} stay")
        gone = one.with_name(f".{one.name}{_REMOVED}")
        one.rename(gone)  # under its name a model is whole or not at all
        shutil.rmtree(gone)


def _models(root: Path) -> list[Path]:
    return sorted(
        path.parent
        for path in root.glob(f"*--*@*/{FolderFiles.INFO}")
        if not path.parent.name.startswith(".")
    )


def _when(place: Path) -> float:
    return place.stat().st_mtime


def _asked(place: Path) -> str:
    return f"{datetime.fromtimestamp(_when(place), UTC):%Y-%m-%d %H:%M} UTC"
