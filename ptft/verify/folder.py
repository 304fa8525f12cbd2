"""A model folder: its files, its recipe, the run before it, and its golden embeddings."""

from pathlib import Path

from ptft.artifact import FolderFiles, ModelInfo, read_model_info, verify_files
from ptft.errors import ArtifactError, DigestError, PtftError
from ptft.files.digests import HeldFiles
from ptft.hub.names import check_file_name
from ptft.hub.pulled import changed_since_pull
from ptft.onnx.served import absent_on_purpose
from ptft.verify.answers import check_onnx, check_torch, same_tensors
from ptft.verify.drawn import InputDraw, check_drawn
from ptft.verify.link import Artefact, Link, broken, holds, unchecked
from ptft.verify.run import check_recipe_digest, published_digest
from ptft.verify.towers import check_towers

__all__ = ["check_folder"]


def check_folder(
    target: str,
    folder: Path,
    *,
    run: Artefact | None,
    before: Artefact | None,
    torch: bool,
    draw: InputDraw,
) -> tuple[Artefact, list[Link]]:
    """Check a folder and what it came from.

    Args:
        run: that it is to come from; None: not known.
        before: the model that it is to be; None: any.
        torch: run the weights by torch where it is installed, and export them again.
        draw: the inputs that are drawn beside the golden ones.
    """
    changed = [broken("files", target, problem) for problem in changed_since_pull(folder)]
    try:
        info = read_model_info(folder)
    except ArtifactError as error:
        unread = broken("files", target, error)
        return Artefact(target), changed or [unread]
    me = Artefact(target, info.digest, info.weights_digest, info.recipe_digest, folder)
    try:
        absent = absent_on_purpose(folder, info)
    except ArtifactError as error:
        return me, [*changed, broken("files", target, error)]
    held, problems = _changed(folder, info, absent)
    changed += [broken("files", target, problem) for problem in problems]
    links = changed or [holds("files", target, _counted(info, absent))]
    recipe = folder / FolderFiles.RECIPE
    recorded = info.published_recipe or info.recipe_digest
    links.append(check_recipe_digest(target, recipe, recorded, FolderFiles.INFO))
    links.append(_check_run(me, run, info.published_recipe))
    if before is not None and before.digest != me.digest:
        links.append(
            broken("digest", target, f"{me.digest}; {before.target} is {before.digest or 'unread'}")
        )
    elif before is not None:
        links.append(holds("digest", target, f"that of {before.target}"))
    if changed:
        return me, [*links, unchecked("golden", target, "files that were changed are not run")]
    if run is not None and run.folder is not None and torch and not absent:
        links.append(same_tensors(target, folder, run))
    ran = check_onnx(target, folder, info)
    if torch and absent:
        why = "the folder was pulled for serving, without the weights; pull the whole to run them"
        ran.append(unchecked("torch", target, why))
    elif torch:
        ran.append(check_torch(target, folder))
        if all(link.state != "broken" for link in ran):
            ran += check_towers(target, folder, info)
            ran += check_drawn(target, folder, info, draw)
    links += ran
    try:
        held.check_unchanged()
    except DigestError as error:  # what was run is not what was held
        links.append(broken("files", target, error))
    return me, links


def _counted(info: ModelInfo, absent: list[str]) -> str:
    if not absent:
        return f"{len(info.files)} files, {info.digest}"
    return (
        f"{len(info.files) - len(absent)} of {len(info.files)} files, {info.digest}; pulled for "
        f"serving without {', '.join(absent)}"
    )


def _changed(folder: Path, info: ModelInfo, absent: list[str]) -> tuple[HeldFiles, list[str]]:
    """The files that are the recorded ones; and each that is another, is absent, or is not
    recorded, but for those that the folder was pulled without."""
    held, problems = HeldFiles({}), []
    for name, recorded in info.files.items():
        if name in absent:
            continue
        try:
            held |= verify_files(folder, {name: recorded})
        except DigestError as error:
            problems.append(str(error))
    present = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = {path.as_posix() for path in present if not path.parts[0].startswith(".")}
    for name in sorted(names - set(info.files) - FolderFiles.UNHASHED):
        try:
            check_file_name(name, str(folder))
            problems.append(f"{folder / name}: {FolderFiles.INFO} does not record it")
        except PtftError as error:
            problems.append(str(error))
    return held, problems


def _check_run(folder: Artefact, run: Artefact | None, published: str) -> Link:
    """Against the run; where the folder's recipe leaves out folders of the machine, the run's own
    recipe without them has to be that one."""
    if run is None:
        weights = folder.weights[:12] or "none"
        return unchecked("run", folder.target, f"name it too; weights {weights} are recorded")
    for what, mine, its in (
        ("recipe", folder.recipe, run.recipe),
        ("weights", folder.weights, run.weights),
    ):
        if mine != its:
            detail = f"{what} {mine or 'none'} recorded; {run.target} has {its or 'none'}"
            return broken("run", folder.target, detail)
    if published and run.run is not None:
        try:
            without = published_digest(run.run)
        except PtftError as error:
            return broken("run", folder.target, error)
        if without != published:
            detail = f"recipe {published} is published; that of {run.target} gives {without}"
            return broken("run", folder.target, detail)
    return holds("run", folder.target, f"recipe and weights of {run.target}")
