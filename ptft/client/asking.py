"""What both clients share: requests of a size that the service takes, and when to ask again."""

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptft.errors import (
    ServiceBusyError,
    ServiceError,
    ServiceRefusedError,
    ServiceUnreachableError,
)

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "Attempts",
    "PictureInput",
    "RequestPart",
    "ask_pictures",
    "ask_texts",
    "read_answer",
    "request_headers",
    "unreachable",
]

PictureInput = bytes | str | Path
"""The bytes of a picture's file, or where the file is."""

_PART_BYTES = 8 * 2**20  # of one request's pictures or texts
_BUSY = (408, 421, 429, 502, 503, 504)  # 421: behind one address there may be another pod
_FIRST_WAIT_S = 0.25  # where the service does not say how long; doubled each time
_LONGEST_WAIT_S = 60.0
_SPLIT = ("too_many_items", "too_many_characters", "too_costly", "body_too_large")


@dataclass(frozen=True)
class RequestPart:
    """One request of several that make up what was asked.

    Attributes:
        path: of the route.
        places: of its items in what was asked.
        values: the rest of the body.
        pictures, texts: its items, either or both; files are read when the request is sent.
        examples: pictures that every request has.
    """

    path: str
    places: Sequence[int]
    values: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[PictureInput] = ()
    texts: Sequence[str] = ()
    examples: Sequence[PictureInput] = ()

    def arguments(self) -> dict[str, Any]:
        """Of httpx's ``request``: a form with files where there are pictures, else JSON."""
        if not self.pictures:
            items = {"texts": list(self.texts)} if self.texts else {}
            return {"method": "POST", "url": self.path, "json": {**items, **self.values}}
        pairs = zip(self.places, self.pictures, strict=True)
        files = [("images", (f"{at}", _read(one))) for at, one in pairs]
        files += [("examples", (f"example {n}", _read(one))) for n, one in enumerate(self.examples)]
        fields = {**({"texts": list(self.texts)} if self.texts else {}), **self.values}
        data = {key: value for key, value in fields.items() if value is not None}
        return {"method": "POST", "url": self.path, "files": files, "data": data}

    def halves(self) -> "tuple[RequestPart, RequestPart]":
        """Two requests for the same."""
        middle = len(self.places) // 2
        return self._piece(slice(None, middle)), self._piece(slice(middle, None))

    def _piece(self, piece: slice) -> "RequestPart":
        return replace(
            self,
            places=self.places[piece],
            pictures=self.pictures[piece],
            texts=self.texts[piece],
        )

    def is_to_split(self, error: ServiceRefusedError) -> bool:
        """Whether the service takes no request as large, and this can be smaller."""
        return error.code in _SPLIT and len(self.places) > 1


def ask_texts(
    path: str, texts: Sequence[str], batch: int, values: Mapping[str, Any]
) -> list[RequestPart]:
    """Requests for texts."""
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{place}]: {type(text).__name__}; allowed: str")
    sizes = [len(text.encode()) for text in texts]
    return [
        RequestPart(path, range(start, end), values, texts=texts[start:end])
        for start, end in _runs(sizes, batch)
    ]


def ask_pictures(
    path: str,
    pictures: Sequence[PictureInput],
    batch: int,
    values: Mapping[str, Any],
    texts: Sequence[str] = (),
) -> list[RequestPart]:
    """Requests for pictures, with the text of each where there are as many texts.

    Raises:
        TypeError: something is no picture's bytes or path.
        OSError: a file cannot be read.
    """
    sizes = [_size(picture, place) for place, picture in enumerate(pictures)]
    return [
        RequestPart(path, range(start, end), values, pictures[start:end], texts[start:end])
        for start, end in _runs(sizes, batch)
    ]


def _size(picture: PictureInput, place: int) -> int:
    if isinstance(picture, bytes):
        return len(picture)
    if isinstance(picture, str | Path):
        return Path(picture).stat().st_size
    raise TypeError(f"pictures[{place}]: {type(picture).__name__}; allowed: bytes or a path")


def _read(picture: PictureInput) -> bytes:
    return picture if isinstance(picture, bytes) else Path(picture).read_bytes()


def _runs(sizes: Sequence[int], batch: int) -> list[tuple[int, int]]:
    """Where runs of at most ``batch`` items and so many bytes begin and end."""
    found: list[tuple[int, int]] = []
    start, room = 0, _PART_BYTES
    for at, size in enumerate(sizes):
        if at > start and (at - start == batch or size > room):
            found.append((start, at))
            start, room = at, _PART_BYTES
        room -= size
    return [*found, (start, len(sizes))] if sizes else []


def request_headers(api_key: str | None, digest: str | None) -> dict[str, str]:
    """Of every request: the key, and the model that is to answer."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return {**headers, "ptft-model-digest": digest} if digest else headers


class Attempts:
    """How often and when a request is sent again.

    Every route is asked for a function of its input, so that asking twice does no harm.

    Args:
        most: times that a request is sent again.
        seconds: in all, waits included.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._left = most
        self._until = time.monotonic() + seconds
        self._wait = _FIRST_WAIT_S

    def after(self, error: ServiceError, retry_after: str | None = None) -> float:
        """Seconds to wait before the next attempt.

        Args:
            retry_after: of the answer's header: seconds, or a date.

        Raises:
            ServiceError: this one, where there is to be no other attempt.
        """
        said = _seconds_of(retry_after)
        wait = random.uniform(0.5, 1) * self._wait if said is None else said  # noqa: S311
        self._wait *= 2
        out_of_time = time.monotonic() + wait > self._until
        if isinstance(error, ServiceRefusedError) or self._left < 1 or out_of_time:
            raise error
        self._left -= 1
        return wait


def _seconds_of(header: str | None) -> float | None:
    """RFC 9110, 10.2.3."""
    if not header:
        return None
    if header.strip().isdigit():
        return min(float(header), _LONGEST_WAIT_S)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    seconds = (when - datetime.now(when.tzinfo or UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT_S)


def read_answer(answer: "httpx2.Response") -> dict[str, Any]:
    """An answer's JSON.

    Raises:
        ServiceRefusedError, ServiceBusyError, ServiceError: by its status.
    """
    try:
        values = json.loads(answer.content)
    except ValueError:
        values = None
    if isinstance(values, dict) and (answer.is_success or "results" in values):
        return values  # 422 with results: every item failed, each with its reason
    found = values.get("error") if isinstance(values, dict) else None
    detail = found if isinstance(found, dict) else {}
    kind = ServiceError
    if answer.status_code in _BUSY:
        kind = ServiceBusyError
    elif 400 <= answer.status_code < 500:
        kind = ServiceRefusedError
    message = detail.get("message") or f"{answer.text[:200]!r}"
    raise kind(
        f"{answer.url}: {answer.status_code}: {message}",
        status=answer.status_code,
        code=str(detail.get("code") or ""),
        param=detail.get("param"),
        request_id=str(detail.get("request_id") or answer.headers.get("x-request-id", "")),
    )


def unreachable(url: str, error: Exception) -> ServiceUnreachableError:
    """Of an error of the transport."""
    return ServiceUnreachableError(f"{url}: {type(error).__name__}: {error}")
