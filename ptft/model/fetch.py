"""Weights and configurations from the Hub and from local files; a pickle is never read."""

from pathlib import Path

from torch import Tensor

from ptft.artifact import PICKLES
from ptft.errors import HubError, ModelError
from ptft.files.arrays import check_header
from ptft.model_source import HubRevision, LocalSource, near_names, resolve, resolve_folder
from ptft.reach import hub_at_hand
from ptft.recipe.paths import split_hub_id
from ptft.speech import tell_once

__all__ = ["fetch_snapshot", "fetch_source", "read_safetensors"]

_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.yaml", "README.md")


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


def fetch_snapshot(source: str, patterns: tuple[str, ...] = _PATTERNS) -> Path:
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


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        ModelError: the file is absent, of another kind, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix in PICKLES:
        raise ModelError(
            f"{path}: a {path.suffix} file may run code when it is read; allowed: .safetensors"
        )
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    check_header(path, error=ModelError)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not a safetensors file: {error}") from None
