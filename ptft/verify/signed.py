"""A model folder's signature, against the key that it is to be signed with."""

from pathlib import Path

from ptft.artifact import FolderFiles, read_model_info
from ptft.errors import ArtifactError
from ptft.signing import check_signature
from ptft.verify.link import Link, broken, holds, unchecked

__all__ = ["check_signed"]


def check_signed(target: str, folder: Path | None, public_key: Path | None) -> list[Link]:
    """The link ``signature``; none where no key is named and the folder has no signature.

    Raises:
        UsageError: the key cannot be read.
    """
    if public_key is None:
        if folder is None or not (folder / FolderFiles.SIGNATURE).is_file():
            return []
        why = "name the key that it is to be signed with: --require-signature KEY"
        return [unchecked("signature", target, why)]
    if folder is None:
        return [broken("signature", target, "there is no folder to look for it in")]
    try:
        key = check_signature(folder, read_model_info(folder), public_key)
    except ArtifactError as error:
        return [broken("signature", target, error)]
    return [holds("signature", target, f"signed with {public_key} (key {key})")]
