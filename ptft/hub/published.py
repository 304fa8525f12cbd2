"""What the texts of a model folder may say to everybody."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ptft.artifact import FolderFiles, ModelInfo
from ptft.errors import ArtifactError, DigestError
from ptft.hub.opened import OpenFile
from ptft.pages.markdown import card_metadata
from ptft.printable import find_credential

__all__ = ["check_texts"]

_TEXTS = frozenset({".md", ".yaml", ".yml", ".txt", ".json", ""})
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"})
"""Of pieces of words, which spell anything."""


def check_texts(folder: Path, files: Mapping[str, OpenFile], info: ModelInfo) -> None:
    """Refuse a card that is no text, any key in a text, and a record that was changed meanwhile.

    Raises:
        ArtifactError: naming the file, and what it holds; not the key itself.
        DigestError: ``ptft.json`` is not the one that the files were held against.
    """
    for name, file in files.items():
        path = PurePosixPath(name)
        if path.suffix.lower() not in _TEXTS or path.name in _VOCABULARIES:
            continue
        if not isinstance(file.content, bytes):
            if name in FolderFiles.UNHASHED:
                raise ArtifactError(
                    f"{folder}: {name}: {file.size} bytes; allowed: a few megabytes"
                )
            continue
        found = find_credential(file.content.decode("utf-8", errors="replace"))
        if found is not None:
            raise ArtifactError(f"{folder}: {name}: holds {found}; nothing was sent, take it out")
    card = files.get(FolderFiles.CARD)
    if card is not None and isinstance(card.content, bytes):
        try:
            card_metadata(card.content.decode("utf-8"))
        except UnicodeDecodeError:
            raise ArtifactError(f"{folder}: {FolderFiles.CARD}: no UTF-8 text") from None
    record = files[FolderFiles.INFO].content
    if isinstance(record, bytes):
        try:
            values = json.loads(record)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or values.get("digest") != info.digest:
            raise DigestError(f"{folder / FolderFiles.INFO}: changed while it was being published")
