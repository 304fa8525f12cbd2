"""What lies under a name that a model may be read from: told once, here.

Nothing is fetched but by :func:`fetch_source`: a revision on the Hub, and of it no pickle.

===================  ================================================  ============================
what is named        kind                                              told by
===================  ================================================  ============================
``runs/mine``        :class:`Run`                                      ``run.json``
``runs/mine/final``  :class:`Checkpoint`                               ``model.json``
``model``            :class:`ModelFolder`, exported or pulled          ``ptft.json``
``soup``             :class:`Mix`                                      ``mix.json``
``their-clip``       :class:`OpenClipFolder`                           ``open_clip_config.json``
``org/repo@v1``      :class:`HubRevision`                              its form; no path is so named
===================  ================================================  ============================
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from ptft.artifact import FolderFiles, RunFiles
from ptft.errors import HubError, ModelError, PtftError
from ptft.reach import hub_at_hand
from ptft.recipe.paths import is_hub_id, split_hub_id
from ptft.speech import tell_once

__all__ = [
    "Checkpoint",
    "HubRevision",
    "LocalSource",
    "Mix",
    "ModelFolder",
    "ModelSource",
    "OpenClipFolder",
    "Run",
    "fetch_snapshot",
    "fetch_source",
    "finished_run",
    "model_folder",
    "near_names",
    "recipe_file",
    "resolve",
    "resolve_folder",
    "run_folder",
]


@dataclass(frozen=True)
class Run:
    """A run: ``path`` is its folder, ``folder`` that of its final model or else of its newest
    checkpoint, None before the first; ``label`` is what people call it."""

    path: Path
    folder: Path | None
    label: str


@dataclass(frozen=True)
class Checkpoint:
    """A model by ptft's own names; ``run`` is the folder of the run that it lies in, or None."""

    folder: Path
    run: Path | None
    label: str


@dataclass(frozen=True)
class _Folder:
    folder: Path
    label: str


@dataclass(frozen=True)
class Mix(_Folder):
    """The mean of several models by their weights, with the record of them."""


@dataclass(frozen=True)
class ModelFolder(_Folder):
    """What an export wrote, here or as it was pulled."""


@dataclass(frozen=True)
class OpenClipFolder(_Folder):
    """A folder that open_clip wrote: it records nothing of its files."""


@dataclass(frozen=True)
class HubRevision:
    """``org/repo`` or ``org/repo@revision``; :func:`fetch_source` fetches it."""

    label: str


LocalSource = Run | Checkpoint | Mix | ModelFolder | OpenClipFolder
ModelSource = LocalSource | HubRevision

_CONFIGS = (RunFiles.SPEC, FolderFiles.OPEN_CLIP_CONFIG)
_FETCHED = ("*.safetensors", "*.json", "*.txt", "*.yaml", "README.md")
_ALLOWED = "a run, a checkpoint, a model folder, or org/repo@revision on the Hub"


def resolve(
    source: str | Path, *, error: type[PtftError] = ModelError, allowed: str = _ALLOWED
) -> ModelSource:
    """What ``source`` names.

    Args:
        error: what is raised.
        allowed: what may be named, for its message.

    Raises:
        error: nothing lies there, or nothing that holds a model.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return resolve_folder(path, error=error)
    if path.exists():
        raise error(f"{path}: a file; allowed: a folder, or org/repo@revision on the Hub")
    if is_hub_id(str(source)):
        return HubRevision(str(source))
    raise error(f"{source}: no such folder{near_names(path)}; allowed: {allowed}")


def fetch_source(source: str | Path) -> LocalSource:
    """What ``source`` names, fetched where that is a revision on the Hub.

    Raises:
        ModelError: nothing lies there that holds a model.
        HubError: the Hub has no such repository or revision, or cannot be reached.
    """
    match resolve(source):
        case HubRevision(label=label):
            return resolve_folder(fetch_snapshot(label), label=label)
        case found:
            return found


def fetch_snapshot(source: str, patterns: tuple[str, ...] = _FETCHED) -> Path:
    """The local folder of ``org/repo@revision``, with safetensors, JSON and text files only.

    Raises:
        HubError: the Hub has no such repository or revision, or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo, _, revision = source.partition("@")
    if "/" in repo:
        repo, revision_or_none, _ = split_hub_id(source)
        revision = revision_or_none or ""
    here = f"no such folder here{near_names(Path(source))}"
    with hub_at_hand() as absent:
        if absent is None:
            tell_once(f"{source}: from the Hub, unless the cache has it")
        try:
            folder = snapshot_download(
                repo, revision=revision or None, allow_patterns=list(patterns)
            )
        except LocalEntryNotFoundError as error:
            why = absent or "cannot reach the Hub"
            raise HubError(f"{source}: {here}; not in the cache; {why}") from error
        except (HfHubHTTPError, OSError, ValueError) as error:
            first = str(error).strip().split("\n")[0]
            raise HubError(
                f"{source}: {here}; cannot be fetched: {type(error).__name__}: {first}"
            ) from error
    return Path(folder)


def resolve_folder(
    path: Path, *, label: str | None = None, error: type[PtftError] = ModelError
) -> LocalSource:
    """What a folder is.

    Args:
        label: what people call it; None: by its own name.

    Raises:
        error: it holds no model.
    """
    label = path.resolve().name if label is None else label
    if (path / FolderFiles.INFO).is_file():
        return ModelFolder(path, label)
    if _holds_model(path):
        return _with_model(path, label)
    steps = sorted((path / RunFiles.CHECKPOINTS).glob("step-[0-9]*"), reverse=True)
    inner = next(filter(_holds_model, (path / RunFiles.FINAL, *steps)), None)
    if (path / RunFiles.RUN).is_file():
        return Run(path, inner, label)
    if inner is not None:  # of a run whose record is not there
        return _with_model(inner, label)
    raise error(
        f"{path}: holds no model; looked for {FolderFiles.INFO}, {', '.join(_CONFIGS)}, "
        f"{RunFiles.RUN}, {RunFiles.FINAL}/ and {RunFiles.CHECKPOINTS}/"
    )


def model_folder(source: LocalSource) -> Path:
    """The folder that holds the files of its model.

    Raises:
        ModelError: it is a run that has saved none yet.
    """
    if source.folder is None:
        raise ModelError(f"{source.path}: a run that has saved no checkpoint yet")
    return source.folder


def run_folder(source: ModelSource) -> Path | None:
    """The folder of the run that it is, or lies in; None of what came from elsewhere."""
    match source:
        case Run(path=path):
            return path
        case Checkpoint(run=run):
            return run
        case _:
            return None


def finished_run(source: ModelSource) -> Path | None:
    """The folder of the run whose final model it is; None of a checkpoint on the way there."""
    run = run_folder(source)
    match source:
        case Run(folder=folder) | Checkpoint(folder=folder) if run is not None:
            return run if folder == run / RunFiles.FINAL else None
        case _:
            return None


def recipe_file(source: ModelSource) -> Path | None:
    """The recipe that made a model, where it lies beside it."""
    match source:
        case Run(path=folder) | Checkpoint(run=Path() as folder) | ModelFolder(folder):
            path = folder / RunFiles.RECIPE
            return path if path.is_file() else None
        case _:
            return None


def near_names(path: Path) -> str:
    """What lies beside a path that does not exist and has nearly its name, to end a message."""
    if not path.parent.is_dir():
        return ""
    try:
        near = difflib.get_close_matches(path.name, (entry.name for entry in path.parent.iterdir()))
    except OSError:  # a folder that may not be read
        return ""
    return f"; did you mean {str(path.parent / near[0])!r}?" if near else ""


def _with_model(folder: Path, label: str) -> LocalSource:
    if not (folder / RunFiles.SPEC).is_file():
        return OpenClipFolder(folder, label)
    if (folder / RunFiles.MIX).is_file():
        return Mix(folder, label)
    around = (folder.parent, folder.parent.parent)  # run/final, run/checkpoints/step-00000100
    return Checkpoint(folder, next(filter(_is_run, around), None), label)


def _holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _CONFIGS)


def _is_run(folder: Path) -> bool:
    return (folder / RunFiles.RUN).is_file()
