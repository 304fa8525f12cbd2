"""Embeddings of label sets, made once for all who ask: the work has a ticket of its own.

Whoever asks for a set that is being made waits with the others; when the last of them has gone the
work is cancelled, and what it held is given back.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serving.admission import Admission

if TYPE_CHECKING:
    from serving.encoder import Encoder

__all__ = ["LabelCache", "expanded_characters"]

_KEPT = 64  # label sets whose embeddings are kept: 1,000 labels at D = 512 take 2 MB
_KEPT_BYTES = 32 * 2**20


class _Making:
    """A set that is being made, and how many wait for it."""

    def __init__(self, task: asyncio.Task[NDArray[np.float32]]) -> None:
        self.task = task
        self.waiting = 0


class LabelCache:
    """What was asked for lately, and what is being made; all methods belong to one event loop."""

    def __init__(self, admission: Admission, encoder: "Encoder") -> None:
        self._admission = admission
        self._encoder = encoder
        self._kept: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._making: dict[str, _Making] = {}

    async def get(
        self, labels: Sequence[str], templates: Sequence[str], caller: str = ""
    ) -> NDArray[np.float32]:
        """Labels (C) in templates to (C, D): the normalised mean over the templates.

        As ``ptft.model.class_head``.

        Args:
            caller: whose request it is; who asks first has it made as one of theirs.

        Raises:
            Refusal: 413 or 429, where making them is more than there is room for.
        """
        key = hashlib.sha256(repr((list(labels), list(templates))).encode()).hexdigest()
        if (found := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return found
        making = self._making.get(key)
        if making is None:
            task = asyncio.create_task(self._make(labels, templates, caller))
            making = self._making[key] = _Making(task)
            task.add_done_callback(lambda task: self._made(key, task))
        making.waiting += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.waiting -= 1
            if not making.waiting and not making.task.done():
                self._making.pop(key, None)
                making.task.cancel()

    def _made(self, key: str, task: asyncio.Task[NDArray[np.float32]]) -> None:
        if (making := self._making.get(key)) is not None and making.task is task:
            del self._making[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._kept[key] = task.result()
        while len(self._kept) > _KEPT or sum(one.nbytes for one in self._kept.values()) > (
            _KEPT_BYTES
        ):
            self._kept.popitem(last=False)

    async def _make(
        self, labels: Sequence[str], templates: Sequence[str], caller: str
    ) -> NDArray[np.float32]:
        count = len(labels) * len(templates)
        characters, longest = expanded_characters(labels, templates)
        ticket = self._admission.open()
        ticket.caller = caller
        try:
            ticket.charge(self._encoder.cost_of_texts(count, characters, longest))
            prompts = [template.replace("{}", label) for label in labels for template in templates]
            rows = np.stack(await self._encoder.encode_texts(ticket, prompts))
        finally:
            ticket.close()
        mean_cd = rows.reshape(len(labels), len(templates), -1).mean(axis=1)
        return mean_cd / np.maximum(np.linalg.norm(mean_cd, axis=1, keepdims=True), 1e-12)


def expanded_characters(labels: Sequence[str], templates: Sequence[str]) -> tuple[int, int]:
    """Characters of all labels in all templates, and of the longest: counted, not written out."""
    total, longest = 0, 0
    written, widest = sum(map(len, labels)), max(map(len, labels))
    for template in templates:
        places = template.count("{}")
        around = len(template) - 2 * places
        total += around * len(labels) + places * written
        longest = max(longest, around + places * widest)
    return total, longest
