"""Artefacts in a row, each held against what it records and against the one before it::

    recipe -> run -> model folder (here or on the Hub) -> service

Digests show that bytes are the right ones: against a run's own record, exactly. Golden embeddings
show that what runs here, or answers there, makes of a few inputs what the checkpoint did; inputs
that are drawn anew show the same of others. Neither shows what a file answers to any further one:
that, for the ONNX files, is shown by exporting the weights again (:mod:`ptft.verify.towers`). It
needs torch; digests and golden embeddings do not. Nothing shows that weights are good ones.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ptft.artifact import RunFiles
from ptft.errors import DigestError, UsageError
from ptft.model_source import (
    Checkpoint,
    HubRevision,
    Mix,
    ModelFolder,
    OpenClipFolder,
    Run,
    resolve,
)
from ptft.speech import tell
from ptft.verify.drawn import InputDraw, new_input_draw
from ptft.verify.folder import check_folder
from ptft.verify.link import Artefact, Link, broken, holds
from ptft.verify.run import check_run
from ptft.verify.service import check_service
from ptft.verify.signed import check_signed

__all__ = ["verify"]

_SERVICE = re.compile(r"https?://.+")
_ALLOWED = "a run, a model folder, org/repo@revision, sha256:... or http://..."
_NAMES = {Checkpoint: "a checkpoint", Mix: "a mix", OpenClipFolder: "a folder of open_clip's"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def verify(
    targets: Sequence[str],
    *,
    torch: bool = True,
    progress: Callable[[str], None] | None = None,
    data: Path | None = None,
    seed: int | None = None,
    signed_by: Path | None = None,
) -> list[Link]:
    """Check every artefact, and every link between two that follow each other.

    Args:
        targets: a run, a model folder, ``org/repo@revision``, ``sha256:...`` (the digest that a
            model folder is to have) or ``http://...`` (a service), in this order.
        torch: run the weights by torch where it is installed.
        progress: told what is being held against what, in words.
        data: a folder of pictures and texts, of which some are drawn beside the golden ones.
        seed: of what is drawn; absent: a new one each time, which the link names.
        signed_by: a public key, which every model folder has to be signed with.

    Raises:
        UsageError: a target is none of these, a service has nothing to be held against, or ``data``
            is no folder.
        HubError: the Hub refused or cannot be reached.
    """
    draw = new_input_draw(seed, data)
    links: list[Link] = []
    run: Artefact | None = None
    model: Artefact | None = None
    say = progress or tell
    for target in targets:
        say(f"{target}: holding it against what it records")
        if _SERVICE.fullmatch(target):
            if model is None:
                raise UsageError(
                    f"{target}: a service is held against a model; name its folder, "
                    "org/repo@revision or sha256:... before it"
                )
            links += check_service(target, model)
        elif _DIGEST.fullmatch(target):
            model = Artefact(target, digest=target)
        else:
            found, more = _check_source(target, run=run, before=model, torch=torch, draw=draw)
            links += more
            if found is not None and found.run is None:
                links += check_signed(target, found.folder, signed_by)
            if found is not None and found.run is not None:
                run = found
            elif found is not None:
                model = found
    return links


def _check_source(
    target: str, *, run: Artefact | None, before: Artefact | None, torch: bool, draw: InputDraw
) -> tuple[Artefact | None, list[Link]]:
    """A run, or a model folder, here or on the Hub; None where a pull was refused."""
    links: list[Link] = []
    match resolve(target, error=UsageError, allowed=_ALLOWED):
        case Run(path=path):
            return check_run(target, path, path / RunFiles.FINAL)
        case Checkpoint(folder, Path() as path) if (folder / RunFiles.WEIGHTS).is_file():
            return check_run(target, path, folder)
        case ModelFolder(folder):
            pass
        case HubRevision():
            from ptft.hub import pull_model

            try:
                folder = pull_model(target)
            except DigestError as error:
                return None, [broken("hub", target, error)]
            what = f"every file as the Hub lists it, commit {folder.name}"
            links.append(holds("hub", target, what))
        case found:
            raise UsageError(f"{target}: {_NAMES[type(found)]}; allowed: {_ALLOWED}")
    artefact, more = check_folder(target, folder, run=run, before=before, torch=torch, draw=draw)
    return artefact, links + more
