"""The client for asyncio."""

import asyncio
from collections.abc import Sequence
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

__all__ = ["AsyncServiceClient"]

_R = TypeVar("_R")
_Answered = list[tuple[Sequence[int], dict[str, Any]]]


class AsyncServiceClient:
    """A service at an address; all methods belong to one event loop.

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
        self._http = httpx2.AsyncClient(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
        self._timeout, self._retries, self._batch = timeout, retries, batch
        self._places = asyncio.Semaphore(connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def model(self) -> ServiceModel:
        """What is served."""
        return read_model(await self._send({"method": "GET", "url": "/v1/model"}))

    async def golden(self) -> dict[str, Any]:
        """What the service says of its golden inputs, which it runs at most once a minute:
        ``holds``, and ``checks`` with ``worst`` and ``allowed`` each."""
        return await self._send({"method": "GET", "url": "/v1/golden"})

    async def embed_pictures(self, pictures: Sequence[PictureInput]) -> EmbeddedItems:
        """Pictures (bytes, or paths) to rows of length 1.

        Raises:
            ServiceError: see ``ptft.errors``; a picture that fails fails alone.
        """
        return await self._ask(questions.pictures_question(pictures, self._batch))

    async def embed_texts(self, texts: Sequence[str]) -> EmbeddedItems:
        """Texts to rows of length 1."""
        return await self._ask(questions.texts_question(texts, self._batch))

    async def classify(
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
        return await self._ask(asked)

    async def detect(
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
        return await self._ask(asked)

    async def similarity(
        self, pictures: Sequence[PictureInput], texts: Sequence[str]
    ) -> PictureScores:
        """Pictures against texts."""
        return await self._ask(questions.similarity_question(pictures, texts, self._batch))

    async def rerank(
        self, query: str, documents: Sequence[str | bytes | Path], *, top_n: int | None = None
    ) -> list[RankedItem]:
        """Texts (str) or pictures (bytes, or paths) by their nearness to a query."""
        return await self._ask(questions.rerank_question(query, documents, top_n))

    async def _ask(self, asked: Question[_R]) -> _R:
        tasks = [asyncio.ensure_future(self._send_part(part)) for part in asked.parts]
        try:
            answered = [one for found in await asyncio.gather(*tasks) for one in found]
        finally:
            for task in tasks:
                task.cancel()
        return asked.read(answered)  # type: ignore[arg-type]

    async def _send_part(self, part: RequestPart) -> _Answered:
        """In halves, where the service takes no request as large."""
        try:
            async with self._places:
                return [(part.places, await self._send(part.arguments()))]
        except ServiceRefusedError as error:
            if not part.is_to_split(error):
                raise
        first, second = part.halves()
        return await self._send_part(first) + await self._send_part(second)

    async def _send(self, arguments: dict[str, Any]) -> dict[str, Any]:
        attempts = Attempts(self._retries, self._timeout)
        while True:
            said = None
            try:
                answer = await self._http.request(**arguments)
                said = answer.headers.get("retry-after")
                return read_answer(answer)
            except httpx2.TransportError as error:
                failed: ServiceError = unreachable(str(self._http.base_url), error)
            except ServiceError as error:
                failed = error
            await asyncio.sleep(attempts.after(failed, said))
