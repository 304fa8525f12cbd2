"""The licence of what a model starts from, as far as anything says it.

A model that was trained from others' weights carries their licence. It is looked for when a run
starts, where its base is at hand: in the card of a model folder or of a repository on the Hub, in
the record of an earlier run, in timm's own configuration. What is not found is ``unknown``, which a
push asks about; it is never guessed.
"""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from ptft.artifact import FolderFiles, RunFiles, read_json
from ptft.compat import import_open_clip, import_timm
from ptft.errors import ArtifactError, ModelError, PtftError
from ptft.model_record import read_mix
from ptft.model_source import Checkpoint, Mix, Run, resolve_folder
from ptft.pages.markdown import UNKNOWN, card_metadata, metadata_licence
from ptft.reach import hub_at_hand
from ptft.recipe import ArchModel, Recipe, TowersModel, load_foreign
from ptft.recipe.paths import is_hub_id, split_hub_id
from ptft.recipe.yaml_text import MAX_YAML
from ptft.speech import tell_once

__all__ = ["base_licence", "card_licence", "common_licence", "hub_bases", "run_licence"]


def base_licence(recipe: Recipe) -> str:
    """By the Hub's short name; "" where training starts from random weights."""
    return common_licence(_licences(recipe, ask=True))


def common_licence(licences: Iterable[str]) -> str:
    """That of several bases; "" of none, or of bases that need none themselves.

    ``unknown`` where one base says nothing, or two have different licences.
    """
    found = set(licences) - {""}
    if len(found) > 1:
        return UNKNOWN
    return found.pop() if found else ""


def run_licence(run: Path) -> str:
    """That of a run's base, as ``run.json`` has it, or else as its recipe tells today; of a base on
    the Hub by the card in the cache, since the run may be anybody's and nothing is fetched for it.

    ``unknown`` where neither can be read, or where one run is said to start from another and so on
    without an end.
    """
    try:
        record = read_json(run / RunFiles.RUN)
        licence = record.get("licence") if isinstance(record, dict) else None
        if licence is None:
            return common_licence(_licences(load_foreign(run / RunFiles.RECIPE), ask=False))
        return licence if isinstance(licence, str) else UNKNOWN
    except (PtftError, RecursionError):
        return UNKNOWN


def card_licence(path: Path) -> str:
    """``license`` in the front matter of a card, ``unknown`` without one."""
    try:
        if not path.is_file():  # a pipe would be waited at
            return UNKNOWN
        with path.open(encoding="utf-8") as stream:
            values = card_metadata(stream.read(MAX_YAML))  # more is no header
    except (OSError, UnicodeDecodeError, ArtifactError):
        return UNKNOWN
    return metadata_licence(values)


def hub_bases(recipe: Recipe | None) -> list[str]:
    """Repositories on the Hub whose weights training starts from, without revisions."""
    bases = [] if recipe is None else [base for base in _bases(recipe) if is_hub_id(base)]
    return list(dict.fromkeys(base.partition("@")[0] for base in bases))


def _bases(recipe: Recipe) -> Iterator[str]:
    """Folders, files and Hub ids of weights; of an open_clip tag its repository, or the tag."""
    if recipe.init is not None and recipe.init.weights:
        yield recipe.init.from_
    match recipe.model:
        case ArchModel(name=name, pretrained=str(weights)):
            known = import_open_clip().get_pretrained_cfg(name, weights)
            yield str(known["hf_hub"]).rstrip("/") if known and known.get("hf_hub") else weights
        case TowersModel():
            if recipe.model.image_weights is not None:
                yield recipe.model.image_weights
            if isinstance(recipe.model.text, str) and recipe.model.text_weights:
                yield recipe.model.text


def _licences(recipe: Recipe, *, ask: bool) -> Iterator[str]:
    """Of each base; ``ask``: the Hub, where that is at hand."""
    for base in _bases(recipe):
        path = Path(base).expanduser()
        if path.is_dir():
            licence = _of_folder(path)
        elif is_hub_id(base):
            licence = _of_repository(base, ask=ask)
        elif isinstance(recipe.model, TowersModel) and not path.exists():
            licence = _of_timm(recipe.model.image, base)
        else:
            licence = UNKNOWN
        yield licence


def _of_folder(folder: Path) -> str:
    try:
        found = resolve_folder(folder)
    except ModelError:  # a tower alone, as its library wrote it
        return card_licence(folder / FolderFiles.CARD)
    match found:
        case Run(path=run) | Checkpoint(run=Path() as run):
            return run_licence(run)
        case Mix():
            return common_licence(parent.licence for parent in read_mix(folder).parents)
        case _:
            return card_licence(folder / FolderFiles.CARD)


def _of_repository(base: str, *, ask: bool) -> str:
    """From its card: the cached one where the Hub cannot be asked, or is not to be."""
    from huggingface_hub import hf_hub_download

    repo, revision, _ = split_hub_id(base)
    try:
        with hub_at_hand() if ask else nullcontext("not asked") as absent:
            if absent is None:
                tell_once(f"{base}: from the Hub, unless the cache has it")
            card = hf_hub_download(
                repo, FolderFiles.CARD, revision=revision, local_files_only=not ask
            )
        return card_licence(Path(card))
    except Exception:  # no card, no network, no right: whatever it is, the licence is not known
        return UNKNOWN


def _of_timm(architecture: str, tag: str) -> str:
    known = import_timm().get_pretrained_cfg(f"{architecture.partition('.')[0]}.{tag}")
    return str(getattr(known, "license", None) or UNKNOWN)
