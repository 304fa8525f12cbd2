"""Publish a card without losing what people wrote on the Hub.

A card belongs to the export but for blocks between ``<!-- keep NAME -->`` and
``<!-- /keep NAME -->`` and metadata keys that the export does not write (see
``ptft.export.card``). People edit such a block in the folder or on the Hub; the published card
ends with a line of digests that tells which of the two it was since the last push.
"""

import contextlib
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from ptft.artifact import FolderFiles
from ptft.errors import ArtifactError, HubError
from ptft.pages.markdown import card_metadata, replace_metadata
from ptft.printable import printable

__all__ = ["EMPTY", "merge_card"]

EMPTY = "What people should know of this model. This block stays when the model is exported again."
"""What the export puts into a block that nobody has written in yet."""

_KEEP = re.compile(r"<!-- keep (?P<name>[\w-]+) -->\n(?P<text>.*?)<!-- /keep (?P=name) -->", re.S)
_SEEN = re.compile(r"\n*<!-- pushed (?P<pairs>[\w=: -]*) -->\n*\Z")
_WHOLE = "card:body"  # what is digested of a card without blocks; no block can have this name
_EARLIER = "earlier"  # the block that takes in a card that was there before the first push


def merge_card(new: str, old: str | None) -> str:
    """The card to publish: ``new`` with what was written by hand into ``old``.

    Args:
        new: the folder's.
        old: as it stands on the Hub; None: there is none. If it has no block, all of it was
            written by hand and becomes one.

    Merging ``new`` into the result again changes nothing. Controls that somebody put into either
    (escapes, overrides of the reading order) are written out.

    Raises:
        ArtifactError: the header of ``new`` is no YAML mapping.
        HubError: a block was written in both places since the last push.
    """
    new = _SEEN.sub("\n", printable(new.replace("\r\n", "\n"), lines=True))
    old = printable((old or "").replace("\r\n", "\n"), lines=True)
    seen_match = _SEEN.search(old)
    seen = dict(_pair(pair) for pair in seen_match["pairs"].split()) if seen_match else {}
    here, there, body = _blocks(new), _blocks(old), _body(_SEEN.sub("", old))
    if not there and body not in ("", _body(new)) and seen.get(_WHOLE) != _digest(body):
        there = {_EARLIER: f"{body}\n"}
    merged = {name: _choose(name, text, there.get(name), seen) for name, text in here.items()}
    result = _KEEP.sub(lambda match: _block(match["name"], merged[match["name"]]), new)
    for name, text in there.items():
        if name not in merged:
            merged[name] = text
            result = f"{result.rstrip()}\n\n{_block(name, text)}\n"
    pairs = [f"{n}={_digest(here.get(n, EMPTY))}:{_digest(text)}" for n, text in merged.items()]
    pairs = pairs or [f"{_WHOLE}={_digest(_body(new))}"]
    return _with_metadata(f"{result.rstrip()}\n\n<!-- pushed {' '.join(pairs)} -->\n", old)


def _choose(name: str, here: str, there: str | None, seen: Mapping[str, str]) -> str:
    """The text of a block that the folder and the Hub both have."""
    if there is None or there.strip() in ("", EMPTY, here.strip()):
        return here
    before_here, _, before_there = seen.get(name, "").partition(":")
    if here.strip() in ("", EMPTY) or _digest(here) == before_here:
        return there
    if _digest(there) == before_there or there.strip() in here:
        return here
    raise HubError(
        f"{FolderFiles.CARD}: block {name!r} was written both in the folder and on the Hub since "
        "the last push; copy the Hub's text into the folder's block, then push again"
    )


def _with_metadata(card: str, old: str) -> str:
    """``card`` with the keys and tags that only ``old`` has."""
    ours, theirs = card_metadata(card), {}
    with contextlib.suppress(ArtifactError):  # spoilt on the Hub: the folder's is sound
        theirs = card_metadata(old)
    kept = {key: value for key, value in theirs.items() if key not in ours}
    tags = [tag for tag in _tags(theirs) if tag not in _tags(ours)]
    if not kept and not tags:
        return card
    if tags and "tags" in ours:
        ours["tags"] = [*_tags(ours), *tags]
    return replace_metadata(card, {**ours, **kept})


def _tags(values: Mapping[str, Any]) -> list[Any]:
    tags = values.get("tags")
    return tags if isinstance(tags, list) else []


def _blocks(card: str) -> dict[str, str]:
    return {match["name"]: match["text"] for match in _KEEP.finditer(card)}


def _block(name: str, text: str) -> str:
    return f"<!-- keep {name} -->\n{text}<!-- /keep {name} -->"


def _body(card: str) -> str:
    return replace_metadata(card, None).strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def _pair(text: str) -> tuple[str, str]:
    """``name=digests`` -> (name, digests): of the folder's text and of the published one."""
    name, _, digests = text.partition("=")
    return name, digests
