"""A branch of a repository as it stands, before something is published on it."""

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptft.artifact import FolderFiles, read_json
from ptft.errors import ArtifactError, HubError
from ptft.hub.names import git_id

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo as HubModel
    from huggingface_hub.hf_api import RepoFile

__all__ = ["Remote", "check_tag", "read_branch", "read_or_create"]


@dataclass(frozen=True)
class Remote:
    """A branch.

    Attributes:
        commit: it is at (40 hex digits).
        files: the Hub's listing by name, ids included.
        ours: names that its ``ptft.json`` lists; a later version may delete these and no others.
        card: its README.md, or None.
    """

    commit: str
    files: Mapping[str, "RepoFile"]
    ours: frozenset[str]
    card: str | None

    def holds(self, name: str, content: Path | bytes, sha256: str) -> bool:
        """Whether these bytes stand there under this name, by the ids in the listing."""
        there = self.files.get(name)
        if there is None:
            return False
        if there.lfs is not None:
            return bool(there.lfs.sha256 == sha256)
        return bool(
            there.blob_id == git_id(content if isinstance(content, bytes) else content.read_bytes())
        )


def read_branch(api: "HfApi", repo: str, revision: str, *, private: bool | None) -> Remote | None:
    """The branch as it stands; None: there is no such repository, or none to be seen.

    Raises:
        HubError: it has another visibility than ``private`` says.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    try:
        found = api.model_info(repo, revision=revision)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    _check_visibility(api, repo, found, private)
    commit = str(found.sha)
    tree = api.list_repo_tree(repo, recursive=True, revision=commit)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    return Remote(commit, files, *_read(api, repo, commit, files))


def read_or_create(api: "HfApi", repo: str, revision: str, *, private: bool | None) -> Remote:
    """As :func:`read_branch`, and the repository is created where there is none.

    Raises:
        HubError: the name is taken, or the visibility is another.
    """
    from huggingface_hub.errors import HfHubHTTPError

    remote = read_branch(api, repo, revision, private=private)
    if remote is not None:
        return remote
    try:
        api.create_repo(repo, private=private)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
    remote = read_branch(
        api, repo, revision, private=private
    )  # 409: somebody may just have made it
    if remote is None:
        raise HubError(f"{repo}: the name is taken by a repository that this token may not see")
    return remote


def check_tag(api: "HfApi", repo: str, tag: str, remote: Remote, *, changed: bool) -> None:
    """Refuse, before anything is sent, to give a version's name to other bytes.

    Raises:
        HubError: the tag names another commit than the one that the push will end at.
    """
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
    if tag in tags and (changed or tags[tag] != remote.commit):
        raise HubError(
            f"{repo}: tag {tag!r} names commit {tags[tag][:12]} already, and a version is never "
            f"moved; choose another (taken: {', '.join(sorted(tags))})"
        )


def _check_visibility(api: "HfApi", repo: str, found: "HubModel", private: bool | None) -> None:
    if private is None or bool(found.private) == private:
        return
    now, asked = ("private", "public") if found.private else ("public", "private")
    raise HubError(
        f"{repo}: is {now} already, and {asked} was asked for; change it at "
        f"{api.endpoint}/{repo}/settings, or leave the option out"
    )


def _read(
    api: "HfApi", repo: str, commit: str, files: Mapping[str, "RepoFile"]
) -> tuple[frozenset[str], str | None]:
    """(names that its ptft.json lists, its card); nothing is left in the user's cache."""
    ours: frozenset[str] = frozenset()
    card = None
    with tempfile.TemporaryDirectory() as cache:

        def fetch(name: str) -> Path:
            return Path(api.hf_hub_download(repo, name, revision=commit, cache_dir=cache))

        if FolderFiles.INFO in files:
            # One that cannot be read is somebody else's: nothing there is ours to delete
            with contextlib.suppress(ArtifactError, KeyError, TypeError):
                ours = frozenset(map(str, read_json(fetch(FolderFiles.INFO))["files"]))
        if FolderFiles.CARD in files:
            card = fetch(FolderFiles.CARD).read_text(encoding="utf-8", errors="replace")
    return ours, card
