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

from ptft.artifact import FolderFiles, RunFiles
from ptft.errors import DigestError, UsageError
from ptft.recipe.paths import is_hub_id
from ptft.verify.drawn import new_draw
from ptft.verify.folder import check_folder
from ptft.verify.link import Artefact, Link, broken, holds
from ptft.verify.run import check_run, find_run
from ptft.verify.service import check_service

__all__ = ["verify"]

_SERVICE = re.compile(r"https?://.+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def verify(
    targets: Sequence[str],
    *,
    torch: bool = True,
    progress: Callable[[str], None] | None = None,
    data: Path | None = None,
    seed: int | None = None,
) -> list[Link]:
    """Check every artefact, and every link between two that follow each other.

    Args:
        targets: a run, a model folder, ``org/repo@revision``, ``sha256:...`` (the digest that a
            model folder is to have) or ``http://...`` (a service), in this order.
        torch: run the weights by torch where it is installed.
        progress: told what is being held against what, in words.
        data: a folder of pictures and texts, of which some are drawn beside the golden ones.
        seed: of what is drawn; absent: a new one each time, which the link names.

    Raises:
        UsageError: a target is none of these, a service has nothing to be held against, or ``data``
            is no folder.
        HubError: the Hub refused or cannot be reached.
    """
    draw = new_draw(seed, data)
    links: list[Link] = []
    run: Artefact | None = None
    model: Artefact | None = None
    say = progress or (lambda message: None)
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
        elif (found := find_run(target)) is not None:
            run, more = check_run(target, *found)
            links += more
        else:
            folder, more = _folder(target)
            links += more
            if folder is not None:
                model, more = check_folder(
                    target, folder, run=run, before=model, torch=torch, draw=draw
                )
                links += more
    return links


def _folder(target: str) -> tuple[Path | None, list[Link]]:
    """The model folder of a target; None where a pull was refused."""
    path = Path(target).expanduser()
    if (path / FolderFiles.INFO).is_file():
        return path, []
    if not is_hub_id(target):
        what = f"has neither {FolderFiles.INFO} nor {RunFiles.RUN}" if path.exists() else "is none"
        raise UsageError(
            f"{target}: {what}; allowed: a run, a model folder, org/repo@revision, sha256:... or "
            "http://..."
        )
    from ptft.hub import pull_model

    try:
        folder = pull_model(target)
    except DigestError as error:
        return None, [broken("hub", target, error)]
    return folder, [holds("hub", target, f"every file as the Hub lists it, commit {folder.name}")]
