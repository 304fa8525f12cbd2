"""Which files a model repository may hold, and how a repository is named.

A name is checked on both sides: before a push, and before anything that a repository's own
``ptft.json`` lists is downloaded.
"""

import hashlib
from pathlib import Path, PurePosixPath

from ptft.artifact import PICKLES, FolderFiles, ModelInfo
from ptft.errors import ArtifactError, UsageError
from ptft.hub.opened import check_entries
from ptft.recipe.paths import split_hub_id

__all__ = [
    "SUFFIXES",
    "check_file_name",
    "git_id",
    "git_ids",
    "local_files",
    "split_target",
]

SUFFIXES = frozenset(
    {".safetensors", ".onnx", ".onnx_data", ".json", ".yaml", ".yml", ".md", ".txt", ".png"}
)
_OTHERS = frozenset({"LICENSE", "NOTICE", FolderFiles.SIGNATURE})


def split_target(target: str) -> tuple[str, str | None]:
    """``org/name@revision`` -> (``org/name``, revision or None).

    Raises:
        UsageError: it has another form.
    """
    repo, revision, split = split_hub_id(target)
    if split is not None:
        raise UsageError(f"{target!r}: not of the form org/name@revision")
    return repo, revision


def check_file_name(name: str, where: str) -> None:
    """Refuse a name that leads out of the folder, or a kind of file that no model folder has.

    Raises:
        ArtifactError: naming ``where``, the file, and what is allowed.
    """
    path = PurePosixPath(name)
    plain = name == path.as_posix() and not path.is_absolute() and "\\" not in name
    if not plain or any(part.startswith(".") for part in path.parts):
        raise ArtifactError(f"{where}: {name!r} is no plain file name inside the folder")
    if path.suffix.lower() in PICKLES:
        raise ArtifactError(
            f"{where}: {name}: a {path.suffix} file may run code when it is read; "
            "weights are .safetensors or .onnx"
        )
    if path.suffix not in SUFFIXES and name not in _OTHERS:
        raise ArtifactError(f"{where}: {name}: allowed: {', '.join(sorted(SUFFIXES))} files")


def git_ids(path: Path) -> tuple[str, str]:
    """The two names under which the Hub may list a file's bytes.

    git's own (sha1 over a header and the bytes), and that of the pointer which stands for the file
    in git where the bytes lie in large file storage (the Git LFS specification, version 1).
    """
    size, sha256 = path.stat().st_size, hashlib.sha256()
    sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            sha1.update(piece)
            sha256.update(piece)
    oid = sha256.hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"
    return sha1.hexdigest(), git_id(pointer.encode())


def git_id(content: bytes) -> str:
    """git's name for a file's content: sha1 over a header and the bytes."""
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def local_files(folder: Path, info: ModelInfo) -> list[str]:
    """Names of the files to push: those that ``ptft.json`` records, itself and the card.

    Hidden files are left where they are (what the Hub's client keeps beside a download).

    Raises:
        ArtifactError: a link or a special file, a file that may be a pickle, or one that
            ``ptft.json`` does not record.
    """
    present = check_entries(folder)
    for name in sorted({*present, *info.files}):
        check_file_name(name, str(folder))
    unrecorded = [
        name for name in present if name not in info.files and name not in FolderFiles.UNHASHED
    ]
    if unrecorded:
        raise ArtifactError(
            f"{folder}: {unrecorded[0]}: {FolderFiles.INFO} does not record it; "
            "move it away, or export the model again"
        )
    return present
