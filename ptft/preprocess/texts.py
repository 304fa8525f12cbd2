"""Texts to token ids, as open_clip's tokenizers do it, on the ``tokenizers`` library alone.

Two kinds, after the two classes of open_clip:

``clip``
    ``SimpleTokenizer``: CLIP's byte-pair vocabulary, lower-cased, between a start and an end mark,
    padded with zeros.
``hf``
    ``HFTokenizer`` and the SigLIP tokenizers: the backend of a fast transformers tokenizer, padded
    with the id that it names.

A tokenizer is a ``tokenizer.json`` and a few plain keyword arguments, so that training, export and
serving read the same two things.

Names of special tokens in users' texts are read as open_clip reads them: ``<start_of_text>`` and
``<end_of_text>`` are CLIP's marks themselves, OpenAI's ``<|endoftext|>`` is plain text, and ``hf``
takes for special whatever the vocabulary does, after the cleaning (a SigLIP's ``</s>`` has become a
word by then). A tower that reads nothing behind its end mark loses what follows one:
:meth:`TextTokenizer.ends_early` tells.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ptft.errors import ModelError
from ptft.files.bounds import read_bytes
from ptft.model_record import MAX_CONTEXT
from ptft.preprocess.cleaning import CLEANERS, bound_text
from ptft.preprocess.clip_vocabulary import END_OF_TEXT, START_OF_TEXT, rename_marks
from ptft.preprocess.tokenizer_file import check_tokenizer

__all__ = ["LONGEST", "TextTokenizer"]

Clean = Literal["clip", "canonicalize", "whitespace", "none"]

LONGEST = 16_384  # characters of a text that are looked at, or more for a long context:
_A_TOKEN = 32  # characters, which is some six times what a token of any language has
_A_MOMENT = 1024  # characters, the most that are cut into tokens while other threads stand still

_allowed: set[bytes] = set()  # digests of files that were held once in this process

_WRITTEN_MARKS = re.compile(
    f"{START_OF_TEXT}|{END_OF_TEXT}"
)  # open_clip reads them where they stand in a text


class TextTokenizer:
    """Texts to padded token ids.

    Args:
        file_or_json: a ``tokenizer.json``, or its text.
        context_length: tokens of a row, marks included; longer texts are cut and keep their end
            mark.
        kind: ``clip`` or ``hf``, see above.
        clean: what happens to a text first. All but ``none`` repair wrongly decoded bytes, resolve
            HTML entities and strip; ``whitespace`` also makes every run of white space one space;
            ``clip`` then lower-cases; ``canonicalize`` (SigLIP) drops ASCII punctuation and
            lower-cases.
        pad_id: fills a row.
        pad_left: fill on the left.
        zeroed_id: an id that becomes 0 (open_clip's ``strip_sep_token``).
        trimmable: padding does not reach the model's output, so that rows may be cut to the
            longest text of a batch.

    Raises:
        ModelError: the JSON is none that the ``tokenizers`` library reads, or the file has parts
            that are not allowed (:mod:`ptft.preprocess.tokenizer_file`).
    """

    def __init__(
        self,
        file_or_json: Path | str,
        *,
        context_length: int,
        kind: Literal["clip", "hf"] = "clip",
        clean: Clean = "clip",
        pad_id: int = 0,
        pad_left: bool = False,
        zeroed_id: int | None = None,
        trimmable: bool = False,
    ) -> None:
        self._json = _read_json(file_or_json)
        if not 1 <= context_length <= MAX_CONTEXT:
            raise ModelError(
                f"context_length: {context_length}; allowed: a whole number from 1 to {MAX_CONTEXT}"
            )
        if kind == "clip":
            self._json = rename_marks(self._json)
        self.context_length = context_length
        self.kind = kind
        self.clean: Clean = clean
        self.pad_id = pad_id
        self.pad_left = pad_left
        self.zeroed_id = zeroed_id
        self.trimmable = trimmable
        if clean not in CLEANERS:
            raise ModelError(f"clean: {clean!r}; allowed: {', '.join(CLEANERS)}")
        self._cleaner = CLEANERS[clean]
        parsed = _parse(self._json, kind, context_length)
        self._tokenizer, self._marks, self._around = parsed.tokenizer, parsed.marks, parsed.around

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Token ids (B, L), L the context length."""
        if isinstance(texts, str):
            texts = [texts]
        return self.uncleaned([self._cleaned(text) for text in texts])

    def uncleaned(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The same of texts that are taken as they are."""
        rows = np.full((len(texts), self.context_length), self.pad_id, np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self._encode(text)
            if not ids:
                continue
            if self.pad_left:
                row[-len(ids) :] = ids
            else:
                row[: len(ids)] = ids
        if self.zeroed_id is not None:
            rows[rows == self.zeroed_id] = 0
        return rows

    def trim(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B, L) cut to the longest text of the batch; as it is where padding matters."""
        if not tokens.size:
            return tokens
        return tokens[:, : int(self.lengths(tokens).max())]

    def lengths(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each row of (B, L) that are not padding, at least 1; L where that matters."""
        if not self.trimmable or self.pad_left:
            return np.full(len(tokens), tokens.shape[1], np.int64)
        used = tokens != self.pad_id
        lengths: NDArray[np.int64] = (used * np.arange(1, tokens.shape[1] + 1)).max(axis=1)
        return np.maximum(lengths, 1)

    def ends_early(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows of (B, L) go on behind an end mark, since their texts spell one out: (B,).

        A tower that reads nothing behind the first one (``ModelSpec.text_stops``) loses the rest.
        """
        if not self._around:
            return np.zeros(len(tokens), np.bool_)
        ends = tokens == self._around[-1]
        behind = ends.cumsum(axis=1) > ends
        lost: NDArray[np.bool_] = (behind & ~ends & (tokens != self.pad_id)).any(axis=1)
        return lost

    def too_long(self, texts: Sequence[str], tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which texts were cut at the context length: (B,).

        Args:
            tokens: their rows (B, L); only the full ones are looked at again.
        """
        edge = tokens[:, :2] if self.pad_left else tokens[:, -2:]  # of two, one may be zeroed
        found = (edge != self.pad_id).any(axis=1)
        for index in np.flatnonzero(found):
            text = texts[int(index)]
            found[index] = len(text) > self._longest or self._is_cut(self._cleaned(text))
        return found

    def decode(self, tokens: NDArray[np.int64]) -> list[str]:
        """Texts of token ids (B, L), for people: cleaned, and spaced where words were split."""
        end = self._marks.get(END_OF_TEXT)
        silent = {self.pad_id, *self._around} if self.kind == "hf" else set()
        texts = []
        for row in tokens.tolist():
            ids = row[: row.index(end)] if end in row else row  # CLIP's padding is a token, too
            ids = [number for number in ids if number not in silent]
            text = self._tokenizer.decode(ids, skip_special_tokens=True)
            texts.append(text.replace("</w>", " ").replace(" ##", "").strip())
        return texts

    def may_hold(self, token: str) -> bool:
        """Whether a cleaned text can hold the name of a token."""
        return token in self._cleaner(f"a{token}a")

    def token_id(self, token: str) -> int | None:
        """The number of a token, or None where the vocabulary lacks it."""
        number: int | None = self._tokenizer.token_to_id(token)
        return number

    def kwargs(self) -> dict[str, Any]:
        """What makes the same tokenizer of the same file: ``TextTokenizer(file, **kwargs)``."""
        return {
            "context_length": self.context_length,
            "kind": self.kind,
            "clean": self.clean,
            "pad_id": self.pad_id,
            "pad_left": self.pad_left,
            "zeroed_id": self.zeroed_id,
            "trimmable": self.trimmable,
        }

    def with_(self, **changes: Any) -> "TextTokenizer":
        """The same vocabulary with other arguments."""
        return TextTokenizer(self._json, **{**self.kwargs(), **changes})

    @property
    def json(self) -> str:
        """The text of its ``tokenizer.json``; CLIP's marks have open_clip's names in it."""
        return self._json

    def save(self, path: Path) -> None:
        """Write ``tokenizer.json``: :attr:`json`, else byte for byte what was read."""
        path.write_text(self._json, encoding="utf-8")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._json, self.kwargs())

    @property
    def _longest(self) -> int:
        return max(LONGEST, _A_TOKEN * self.context_length)

    def _cleaned(self, text: str) -> str:
        """A text as it is cut into tokens. What lies far beyond the context length is not even
        cleaned, which takes time by the character."""
        return self._cleaner(bound_text(text, self._longest))

    def _encode(self, text: str) -> list[int]:
        if self.kind == "clip" and "_of_text>" in text:
            ids = self._encode_marks(text)
            if len(ids) > self.context_length:
                ids = [*ids[: self.context_length - 1], self._marks[END_OF_TEXT]]
            return ids
        return list(_run(self._tokenizer, text).ids)

    def _is_cut(self, text: str) -> bool:
        if self.kind == "clip" and "_of_text>" in text:
            return len(self._encode_marks(text)) > self.context_length
        return bool(_run(self._tokenizer, text).overflowing)

    def _encode_marks(self, text: str) -> list[int]:
        """A text that spells out a mark, which open_clip then takes for the mark itself."""
        ids: list[int] = [self._marks[START_OF_TEXT]]
        done = 0
        for match in _WRITTEN_MARKS.finditer(text):
            start = match.start()
            if start > done and _in_punctuation(text[start - 1]):
                continue  # the run of punctuation before it has swallowed its first character
            ids += self._plain_ids(text[done:start])
            ids.append(self._marks[match.group()])
            done = match.end()
        ids += self._plain_ids(text[done:])
        ids.append(self._marks[END_OF_TEXT])
        return ids

    def _plain_ids(self, text: str) -> list[int]:
        # without marks of its own, so that no more than the context length is ever needed
        ids: list[int] = _run(self._tokenizer, text, marks=False).ids
        return ids


@dataclass(frozen=True)
class _Parsed:
    """A vocabulary as the library reads it; nothing changes it.

    Attributes:
        tokenizer: cuts at a context length.
        marks: CLIP's, by name; empty for another kind.
        around: the ids that stand around any text.
    """

    tokenizer: Tokenizer
    marks: dict[str, int]
    around: list[int]


@lru_cache(maxsize=2)  # parsing one takes a tenth of a second, and models are read many times
def _parse(text: str, kind: str, context_length: int) -> _Parsed:
    """
    Raises:
        ModelError: the library cannot read it, or it lacks a mark.
    """
    try:
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_padding()
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"tokenizer.json: {error}") from None
    marks: dict[str, int] = {}
    if kind == "clip":
        for mark in (START_OF_TEXT, END_OF_TEXT):
            number = tokenizer.token_to_id(mark)
            if number is None:
                raise ModelError(f"tokenizer.json: no CLIP vocabulary, it lacks {mark}")
            marks[mark] = number
        # The cleaning is complete. The file's normaliser, which serves clients that do not clean,
        # would also compose characters that HTML entities left decomposed; open_clip does not.
        tokenizer.normalizer = None
        tokenizer.encode_special_tokens = True  # marks are found here, see _encode_marks
    around = _run(tokenizer, "").ids
    try:
        tokenizer.enable_truncation(context_length)
    except Exception as error:  # more marks than tokens
        raise ModelError(f"tokenizer.json: {error}") from None
    return _Parsed(tokenizer, marks, around)


def _run(tokenizer: Tokenizer, text: str, *, marks: bool = True) -> Any:
    """What the library makes of a text.

    Raises:
        ModelError: it gave up, at an expression of the file that takes too long, say.
    """
    try:
        if len(text) > _A_MOMENT:  # the library lets go of the interpreter for lists alone
            return tokenizer.encode_batch_fast([text], add_special_tokens=marks)[0]
        return tokenizer.encode(text, add_special_tokens=marks)
    except BaseException as error:  # a panic of the library's is none of Exception's kind
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelError(f"tokenizer.json: it cannot read a text: {error}") from None
        raise


def _restore(text: str, kwargs: dict[str, Any]) -> TextTokenizer:
    return TextTokenizer(text, **kwargs)


def _read_json(file_or_json: Path | str) -> str:
    if isinstance(file_or_json, str) and file_or_json.lstrip().startswith("{"):
        return file_or_json
    path = Path(file_or_json)
    data = read_bytes(path, error=ModelError)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not a tokenizer.json: {error}") from None
    digest = hashlib.sha256(data).digest()
    if digest not in _allowed:  # a file may be anybody's; a text is what was read before
        check_tokenizer(text, str(path))
        _allowed.add(digest)
    return text


def _in_punctuation(character: str) -> bool:
    if character.isspace() or character == "\u0345":  # as open_clip's expression has it
        return False
    return unicodedata.category(character)[0] not in "LN"
