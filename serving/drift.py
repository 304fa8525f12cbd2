"""How far the last hour's traffic has moved from the embeddings of training.

The model folder's sketch (``ptft.sketch``) says what those were like, and how far samples that were
held out are from them by chance. Of traffic, running sums are kept in parts of the hour: of random
features of its embeddings, and of the probabilities of the classes that it was given. No picture,
no text and no embedding is kept.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ptft.artifact import FolderFiles, ModelInfo
from ptft.errors import SampleError
from ptft.sketch import Confidence, Sketch, Sketches
from serving.settings import Settings

__all__ = ["JUDGED", "WINDOW_S", "Drift", "Moved", "Movement", "read_drift"]

WINDOW_S = 3600
JUDGED = 200
"""Items of the smallest window that is judged. What was held out is a draw itself, often of few
samples; a window of as few differs from it without any drift."""

_PARTS = 12
_CLASSES = 100  # that are listed: those whose share has changed most


class Moved(BaseModel):
    """One kind of what passes through the service, against what it was at training."""

    kind: Annotated[str, Field(description="image, text, or confidence (of the model's classes)")]
    items: Annotated[int, Field(description="in the window")]
    value: Annotated[
        float | None,
        Field(description="squared maximum mean discrepancy; of confidence, its mean"),
    ] = None
    low: Annotated[float | None, Field(description="bound of the null band")] = None
    high: Annotated[float | None, Field(description="bound of the null band")] = None
    moved: Annotated[bool | None, Field(description="beyond the band; null: too few to say")] = None


class ClassMoved(BaseModel):
    """A class, how often it was given and how surely, at training and in the window."""

    label: str
    share_at_training: float
    share: float
    confidence_at_training: float
    confidence: float


class Movement(BaseModel):
    """How far traffic has moved."""

    model: str
    digest: str
    window_s: int
    judged_from: Annotated[int, Field(description="items; below them nothing is said")]
    reason: Annotated[str, Field(description="why nothing is compared; empty where something is")]
    kinds: list[Moved]
    classes: Annotated[list[ClassMoved], Field(description="whose share has changed most, first")]


class _Window:
    """Sums over the last ``WINDOW_S`` seconds, to a twelfth of them."""

    def __init__(self, width: int, clock: Callable[[], float]) -> None:
        self._parts: deque[tuple[int, list[int], NDArray[np.float64]]] = deque()
        self._width = width
        self._clock = clock

    def add(self, count: int, total: NDArray[np.float64]) -> None:
        now = self._forget()
        if not self._parts or self._parts[-1][0] != now:
            self._parts.append((now, [0], np.zeros(self._width)))
        _, counted, summed = self._parts[-1]
        counted[0] += count
        summed += total

    def read(self) -> tuple[int, NDArray[np.float64]]:
        self._forget()
        count = sum(part[1][0] for part in self._parts)
        return count, sum((part[2] for part in self._parts), np.zeros(self._width))

    def _forget(self) -> int:
        now = int(self._clock() // (WINDOW_S / _PARTS))
        while self._parts and self._parts[0][0] <= now - _PARTS:
            self._parts.popleft()
        return now


class Drift:
    """Of a worker; its methods may be called from any thread.

    Args:
        sketches: of training; empty ones compare nothing.
        reason: why they are empty.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        sketches: Sketches = Sketches(),  # noqa: B008 (frozen)
        reason: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reason = reason
        self._lock = threading.Lock()
        self._sketches: Mapping[str, Sketch] = {
            kind: one
            for kind, one in (("image", sketches.image), ("text", sketches.text))
            if one is not None
        }
        self._confidence: Confidence | None = sketches.confidence
        self._windows = {
            kind: _Window(len(one.features), clock) for kind, one in self._sketches.items()
        }
        if self._confidence is not None:
            self._windows["confidence"] = _Window(2 * len(self._confidence.share), clock)

    def observe(self, kind: str, found: Sequence[NDArray[np.float32] | SampleError]) -> None:
        """Embeddings (D,), L2-normalised, that a request was answered by."""
        sketch = self._sketches.get(kind)
        rows = [one for one in found if not isinstance(one, SampleError)]
        if sketch is None or not rows:
            return
        total = sketch.featured(np.stack(rows)).sum(axis=0)
        with self._lock:
            self._windows[kind].add(len(rows), total)

    def observe_classes(self, rows_nc: NDArray[np.float32]) -> None:
        """Probabilities (N, C) of the model's own classes."""
        if self._confidence is None or not len(rows_nc):
            return
        given, classes = rows_nc.argmax(axis=1), len(self._confidence.share)
        counts = np.bincount(given, minlength=classes)
        sums = np.bincount(given, weights=rows_nc.max(axis=1), minlength=classes)
        with self._lock:
            self._windows["confidence"].add(len(rows_nc), np.concatenate([counts, sums]))

    def read(self) -> list[Moved]:
        """Every kind that there is a sketch of."""
        found = []
        for kind, sketch in self._sketches.items():
            count, total = self._read(kind)
            value = sketch.distance(total, count) if count > 1 else None
            bounds = sketch.bounds(count)
            found.append(_judge(kind, count, value, None, bounds[1] if bounds else None))
        if self._confidence is not None:
            count, total = self._read("confidence")
            mean = float(total[len(total) // 2 :].sum()) / count if count else None
            low, high = self._confidence.bounds(count) or (None, None)
            found.append(_judge("confidence", count, mean, low, high))
        return found

    def read_classes(self, labels: Sequence[str]) -> list[ClassMoved]:
        """The classes whose share has changed most, once there are enough items."""
        if self._confidence is None:
            return []
        count, total = self._read("confidence")
        if count < JUDGED:
            return []
        given, sums = total[: len(labels)], total[len(labels) :]
        before, share = self._confidence, given / count
        order = np.argsort(-np.abs(share - before.share), kind="stable")[:_CLASSES]
        return [
            ClassMoved(
                label=labels[c],
                share_at_training=float(before.share[c]),
                share=float(share[c]),
                confidence_at_training=float(before.mean[c]),
                confidence=float(sums[c] / max(given[c], 1)),
            )
            for c in order
        ]

    def _read(self, kind: str) -> tuple[int, NDArray[np.float64]]:
        with self._lock:
            return self._windows[kind].read()


def read_drift(settings: Settings, info: ModelInfo) -> Drift:
    """What the model folder has a sketch for; its bytes have been held against ``ptft.json``.

    Raises:
        ArtifactError: the sketch is not one of this model.
    """
    if FolderFiles.SKETCH not in info.files:
        return Drift(reason=f"the model folder has no {FolderFiles.SKETCH}: export it again")
    classes = len(info.classes) if info.task == "classify" else 0
    path = settings.model / FolderFiles.SKETCH
    return Drift(Sketches.read(path, info.embed_dim, classes))


def _judge(
    kind: str, count: int, value: float | None, low: float | None, high: float | None
) -> Moved:
    moved = None
    if count >= JUDGED and value is not None and high is not None:
        moved = not (low is None or value >= low) or value > high
    return Moved(kind=kind, items=count, value=value, low=low, high=high, moved=moved)
