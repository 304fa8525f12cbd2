"""The client that waits."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from ptft.client import questions
from ptft.client.answers import (
    EmbeddedItems,
    ItemClasses,
    PictureBoxes,
    PictureScores,
    RankedItem,
    ServiceModel,
    read_model,
)
from ptft.client.asking import (
    Attempts,
    PictureInput,
    RequestPart,
    read_answer,
    request_headers,
    unreachable,
)
from ptft.client.questions import Question
from ptft.errors import ServiceError, ServiceRefusedError

__all__ = ["ServiceClient"]

_R = TypeVar("_R")
_Answered = list[tuple[Sequence[int], dict[str, Any]]]


class ServiceClient:
    """A service at an address. Methods may be called from several threads.

    Args:
        url: ``http://localhost:3000``.
        api_key: sent as ``Authorization: Bearer``.
        timeout: seconds to the answer of one request, waits for a busy service included.
        retries: times that a request is sent again where the service is busy or out of reach.
        batch: pictures or texts of one request (``PTFT_MAX_BATCH``); a service that takes fewer
            is sent fewer.
        connections: requests side by side.
        digest: ``sha256:...`` of the model that is to answer: while a release is under way no other
            does. None: whichever is there.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        batch: int = 64,
        connections: int = 4,
        digest: str | None = None,
    ) -> None:
        headers = request_headers(api_key, digest)
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
        self._timeout, self._retries, self._batch = timeout, retries, batch
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="ptft-client")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown(cancel_futures=True)
        self._http.close()

    def model(self) -> ServiceModel:
        """What is served."""
        return read_model(self._send({"method": "GET", "url": "/v1/model"}))

    def golden(self) -> dict[str, Any]:
        """What the service says of its golden inputs, which it runs at most once a minute:
        ``holds``, and ``checks`` with ``worst`` and ``allowed`` each."""
        return self._send({"method": "GET", "url": "/v1/golden"})

    def embed_pictures(self, pictures: Sequence[PictureInput]) -> EmbeddedItems:
        """Pictures (bytes, or paths) to rows of length 1.

        Raises:
            ServiceError: see ``ptft.errors``; a picture that fails fails alone.
        """
        return self._ask(questions.pictures_question(pictures, self._batch))

    def embed_texts(self, texts: Sequence[str]) -> EmbeddedItems:
        """Texts to rows of length 1."""
        return self._ask(questions.texts_question(texts, self._batch))

    def classify(
        self,
        pictures: Sequence[PictureInput] = (),
        texts: Sequence[str] = (),
        *,
        labels: Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
        top_k: int | None = None,
    ) -> list[ItemClasses]:
        """Pictures, texts or pairs to the model's classes, or zero-shot to ``labels``.

        Args:
            top_k: classes of an answer; absent: 5, or all that do not exclude each other.
        """
        asked = questions.classes_question(pictures, texts, labels, templates, top_k, self._batch)
        return self._ask(asked)

    def detect(
        self,
        pictures: Sequence[PictureInput],
        *,
        labels: Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
        examples: Sequence[PictureInput] = (),
        threshold: float = 0.1,
        most: int = 100,
        nms: float | None = None,
        count: bool = False,
    ) -> list[PictureBoxes]:
        """Boxes in pictures: of the model's classes, of ``labels``, or of what looks like the
        ``examples``; see ``/docs`` of the service for the others.

        Args:
            nms: absent: the model's own; 1: every box is told.
            count: tell what the model counts, and how many of each of its classes.
        """
        values = questions.box_options(threshold, most, nms, count=count)
        asked = questions.boxes_question(pictures, labels, templates, examples, values, self._batch)
        return self._ask(asked)

    def similarity(self, pictures: Sequence[PictureInput], texts: Sequence[str]) -> PictureScores:
        """Pictures against texts."""
        return self._ask(questions.similarity_question(pictures, texts, self._batch))

    def rerank(
        self, query: str, documents: Sequence[str | bytes | Path], *, top_n: int | None = None
    ) -> list[RankedItem]:
        """Texts (str) or pictures (bytes, or paths) by their nearness to a query."""
        return self._ask(questions.rerank_question(query, documents, top_n))

    def _ask(self, asked: Question[_R]) -> _R:
        if len(asked.parts) < 2:
            answered = [one for part in asked.parts for one in self._send_part(part)]
        else:
            futures = [self._pool.submit(self._send_part, part) for part in asked.parts]
            try:
                answered = [one for future in futures for one in future.result()]
            finally:
                for future in futures:
                    future.cancel()
        return asked.read(answered)  # type: ignore[arg-type]

    def _send_part(self, part: RequestPart) -> _Answered:
        """In halves, where the service takes no request as large."""
        try:
            return [(part.places, self._send(part.arguments()))]
        except ServiceRefusedError as error:
            if not part.is_to_split(error):
                raise
        first, second = part.halves()
        return self._send_part(first) + self._send_part(second)

    def _send(self, arguments: dict[str, Any]) -> dict[str, Any]:
        attempts = Attempts(self._retries, self._timeout)
        while True:
            said = None
            try:
                answer = self._http.request(**arguments)
                said = answer.headers.get("retry-after")
                return read_answer(answer)
            except httpx2.TransportError as error:
                failed: ServiceError = unreachable(str(self._http.base_url), error)
            except ServiceError as error:
                failed = error
            time.sleep(attempts.after(failed, said))
