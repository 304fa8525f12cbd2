"""Publish a model folder: everything in one commit, or nothing.

What is notable:

- every byte is held against ``ptft.json`` before the first request;
- what the Hub has already (by the ids in its listing) is not sent, so that a folder that is
  there already makes no commit;
- large files go up before the commit and are invisible until it; a push that is cut off leaves
  the branch as it was, and the next one sends only the files that had not arrived;
- the commit names its parent, so that nobody's concurrent change is overwritten;
- a model that was trained from weights whose licence nothing tells is not published;
- links, special files and text that holds a key are not published, and every file that is going
  to be sent is said with its size before it is (:mod:`ptft.hub.opened`).
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptft import __version__
from ptft.artifact import FolderFiles, ModelInfo, read_model_info
from ptft.errors import ArtifactError, DigestError, HubError, UsageError
from ptft.hub.card import merge_card
from ptft.hub.names import local_files, split_target
from ptft.hub.opened import OpenFile, open_files
from ptft.hub.published import check_texts
from ptft.hub.refusals import explained, token_of
from ptft.hub.remote import Remote, check_tag, read_branch, read_or_create
from ptft.onnx.served import check_whole
from ptft.pages.markdown import UNKNOWN, card_metadata, metadata_licence, replace_metadata
from ptft.reach import hub_at_hand
from ptft.speech import tell

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

__all__ = ["PushResult", "push_model"]

_SAID = frozenset({FolderFiles.SIGNATURE, FolderFiles.BOM})  # of the version before: not of this
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # of what git allows, what needs no quoting


@dataclass(frozen=True)
class PushResult:
    """What a push did, or would do.

    Attributes:
        commit: id (40 hex digits) of the commit that holds the folder. In a dry run: of the one
            that the branch is at, or "" where the repository is still to be created.
        url: of that commit, or of the pull request.
        tag: that names it, or None.
        sent: name -> size in bytes of the files that the commit adds or changes. Large ones that
            an earlier, interrupted push had brought to the Hub are not sent a second time.
        deleted: files of the version before that this one does not have.
        notes: what the publisher should know, a sentence each.
    """

    commit: str
    url: str
    tag: str | None
    sent: dict[str, int]
    deleted: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sent_bytes(self) -> int:
        """Size of all files in ``sent``."""
        return sum(self.sent.values())


def push_model(
    folder: Path,
    repo: str,
    *,
    tag: str | None = None,
    licence: str | None = None,
    private: bool | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    revision: str = "main",
    endpoint: str | None = None,
    token: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> PushResult:
    """Publish a model folder in one commit.

    Args:
        folder: that ``export_model`` wrote.
        repo: ``org/name``; created where it does not exist.
        tag: name for this version; one that exists is never moved.
        licence: by the Hub's short name; None: the card's, or that of the base on the Hub.
        private: visibility of a repository that is created; None: the owner's default.
        create_pr: propose the commit as a pull request instead of making it.
        dry_run: look, compare, and change nothing.
        revision: the branch.
        endpoint: of the Hub; None: HF_ENDPOINT's, else huggingface.co.
        token: None: that of ``hf auth login`` or HF_TOKEN.
        progress: told what is being done, in words.

    Raises:
        UsageError: a name that does not fit, options that exclude each other, or a base whose
            licence is unknown.
        ArtifactError, DigestError: the folder is none of ours, or has been changed.
        HubError: the Hub refused or cannot be reached.
    """
    # Over 60 lines: what is looked at before a commit and what is sent stand in one order here.
    say = progress or tell
    folder = Path(folder)
    _check_arguments(folder, repo, tag, create_pr)
    info = read_model_info(folder)
    check_whole(folder, info, "ptft push")
    names = local_files(folder, info)
    say(f"{folder}: holding {len(names)} files against {FolderFiles.INFO}")

    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token, library_name="ptft", library_version=__version__)
    if not dry_run and token_of(api) is None:
        raise HubError(f"{repo}: there is no token; run: hf auth login, or set HF_TOKEN")
    with (
        open_files(folder, names, info.files) as files,
        hub_at_hand(api.endpoint),
        explained(repo, api, revision=revision, doing="push"),
    ):
        check_texts(folder, files, info)
        say(f"{repo}: looking at what is there")
        remote = read_branch(api, repo, revision, private=private)
        contents = _contents(files, remote)
        _state_licence(contents, licence, remote, api)
        if remote is None and not dry_run:
            remote = read_or_create(api, repo, revision, private=private)
        changed = {
            name: content
            for name, content in contents.items()
            if remote is None or not remote.holds(name, content, _sha256(name, content, files))
        }
        gone = sorted(((remote.ours | _SAID) & set(remote.files)) - set(names)) if remote else []
        if tag is not None and remote is not None:
            check_tag(api, repo, tag, remote, changed=bool(changed or gone))
        commit = remote.commit if remote else ""
        url = f"{api.endpoint}/{repo}" + (f"/commit/{commit}" if commit else "")
        if (changed or gone) and not dry_run:
            sizes = {name: _size(name, content, files) for name, content in changed.items()}
            say(f"{repo}: sending {len(changed)} files, {sum(sizes.values()) / 1e6:,.1f} MB")
            for name, size in sizes.items():
                say(f"{size:>16,}  {name}")
            for name in gone:
                say(f"{'delete':>16}  {name}")
            message = f"Publish {info.name}" + (f" {tag}" if tag else "")
            checked = {name: _sha256(name, content, files) for name, content in changed.items()}
            added = _operations(folder, changed, checked)
            commit, url = _commit(
                api, repo, added, gone, info, message, revision, parent=commit, pr=create_pr
            )
        if tag is not None and not dry_run:
            api.create_tag(repo, tag=tag, revision=commit, exist_ok=True)
        sent = {name: _size(name, content, files) for name, content in changed.items()}
    return PushResult(commit, url, tag, sent, tuple(gone), _notes(contents))


def _check_arguments(folder: Path, repo: str, tag: str | None, create_pr: bool) -> None:
    if split_target(repo)[1] is not None:
        raise UsageError(f"{repo}: a push goes to a branch; allowed: org/name")
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    if tag is not None and _TAG.fullmatch(tag) is None:
        raise UsageError(f"tag {tag!r}: allowed: letters, digits and . _ + -, such as v1.0")
    if tag is not None and create_pr:
        raise UsageError("--tag with --create-pr: a version is tagged once its request is merged")


def _contents(files: Mapping[str, OpenFile], remote: Remote | None) -> dict[str, Path | bytes]:
    """What to publish by name: files, and the card with what people wrote into the Hub's."""
    contents = {name: file.content for name, file in files.items()}
    card = contents.get(FolderFiles.CARD)
    if isinstance(card, bytes):
        merged = merge_card(card.decode(), remote.card if remote else None)
        contents[FolderFiles.CARD] = merged.encode()
    return contents


def _state_licence(
    contents: dict[str, Path | bytes], licence: str | None, remote: Remote | None, api: "HfApi"
) -> None:
    """Put the licence into the card where it is given, or where the export did not know it.

    Raises:
        UsageError: the model has a base, and neither the Hub's card nor the base names a licence.
    """
    card = contents.get(FolderFiles.CARD)
    if not isinstance(card, bytes):
        return
    values = card_metadata(card.decode())
    if licence is None and values.get("license") != UNKNOWN:
        return
    if licence is None:
        licence = metadata_licence(_published(remote))
        given = values.get("base_model") or []
        bases = [given] if isinstance(given, str) else list(given)
        if licence == UNKNOWN and len(found := {_licence_on_hub(base, api) for base in bases}) == 1:
            licence = found.pop()
        if licence == UNKNOWN:
            raise UsageError(
                f"the licence of {' and '.join(bases) or 'the weights it started from'} is "
                "unknown, and this model carries it; look it up and name it by the Hub's short "
                "name: --license apache-2.0, say"
            )
    values["license"] = licence
    contents[FolderFiles.CARD] = replace_metadata(card.decode(), values).encode()


def _published(remote: Remote | None) -> dict[str, Any]:
    with contextlib.suppress(ArtifactError):  # spoilt on the Hub
        return card_metadata((remote.card if remote else None) or "")
    return {}


def _licence_on_hub(repo: str, api: "HfApi") -> str:
    """What the card of a base says; ``unknown`` where it says nothing or cannot be seen."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        card = api.model_info(repo).card_data
    except HfHubHTTPError:
        return UNKNOWN
    return metadata_licence(card.to_dict() if card else {})


def _sha256(name: str, content: Path | bytes, files: Mapping[str, OpenFile]) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else files[name].sha256


def _size(name: str, content: Path | bytes, files: Mapping[str, OpenFile]) -> int:
    return len(content) if isinstance(content, bytes) else files[name].size


def _operations(
    folder: Path, changed: Mapping[str, Path | bytes], checked: Mapping[str, str]
) -> list["CommitOperationAdd"]:
    """What the client is going to send, of the bytes that were checked.

    Raises:
        DigestError: a large file was written to since.
    """
    from huggingface_hub import CommitOperationAdd

    added = [CommitOperationAdd(name, content) for name, content in changed.items()]
    for one in added:
        if one.upload_info.sha256.hex() != checked[one.path_in_repo]:
            raise DigestError(f"{folder / one.path_in_repo}: changed while it was being published")
    return added


def _commit(
    api: "HfApi",
    repo: str,
    added: list["CommitOperationAdd"],
    gone: list[str],
    info: ModelInfo,
    message: str,
    revision: str,
    *,
    parent: str,
    pr: bool,
) -> tuple[str, str]:
    """Upload large files, then commit; (commit id, its URL or the pull request's)."""
    from huggingface_hub import CommitOperationDelete

    lineage = {"digest": info.digest, "weights": info.weights_digest, "recipe": info.recipe_digest}
    done = api.create_commit(
        repo,
        [*added, *(CommitOperationDelete(name) for name in gone)],
        commit_message=message,
        commit_description="\n".join(f"{key} {value}" for key, value in lineage.items()),
        revision=revision,
        parent_commit=parent,
        create_pr=pr,
    )
    return done.oid, str(done.pr_url or done.commit_url)


def _notes(contents: Mapping[str, Path | bytes]) -> tuple[str, ...]:
    card = contents.get(FolderFiles.CARD)
    if not isinstance(card, bytes):
        return (f"there is no {FolderFiles.CARD}: the model has no card",)
    if not card_metadata(card.decode()).get("license"):
        return (f"{FolderFiles.CARD} names no license: nobody can tell whether they may use it",)
    return ()
