"""Encoded images and texts to embeddings: decoding in threads, towers in micro-batches.

While one batch runs through a tower the next images are decoded, so that neither waits for the
other. Images and texts have a batcher each; a long list of texts does not hold images up.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ptft.errors import SampleError
from ptft.onnx.model import OnnxModel
from ptft.preprocess import decode_image
from serving.batcher import Batcher
from serving.settings import Settings

__all__ = ["Encoder"]

logger = logging.getLogger("bentoml.ptft")

Observe = Callable[[str, int, float], None]
_LABEL_SETS = 64  # label sets whose embeddings are kept: 1,000 labels at D = 512 take 2 MB


class Encoder:
    """A model, asked asynchronously. All methods belong to one event loop.

    Args:
        model: what encodes.
        settings: threads and caps.
        observe: told the kind (image or text), size and seconds of every batch.
    """

    def __init__(self, model: OnnxModel, settings: Settings, observe: Observe) -> None:
        self.model = model
        self._max_pixels = settings.max_pixels
        self._timeout_s = settings.timeout_s
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="ptft-decode")
        # int8 files scale activations over the whole batch: an image's embedding would depend on
        # its neighbours, so they run one by one (on a CPU that costs little)
        size = 1 if model.precision == "int8" else settings.micro_batch
        self._images, self._texts = (
            Batcher(kind, run, max_batch=size, observe=partial(observe, kind))
            for kind, run in (("image", model.encode_images), ("text", model.encode_texts))
        )
        self._label_sets: OrderedDict[str, asyncio.Task[NDArray[np.float32]]] = OrderedDict()

    async def encode_images(
        self, items: Sequence[bytes | SampleError]
    ) -> list[NDArray[np.float32] | SampleError]:
        """Encoded images to embeddings (D,), each image for itself: one that fails fails alone."""
        answers = await asyncio.gather(
            *(self._encode_image(item, index) for index, item in enumerate(items))
        )
        return list(answers)

    async def encode_texts(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Texts to embeddings (D,)."""
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._pool, self.model.tokenizer, texts)
        return list(await asyncio.gather(*self._texts.submit(list(tokens))))

    async def encode_labels(
        self, labels: Sequence[str], templates: Sequence[str]
    ) -> NDArray[np.float32]:
        """Labels (C) in templates to (C, D): the normalised mean over the templates.

        As ``ptft.model.class_head``. Label sets asked for lately are remembered.
        """
        key = hashlib.sha256(repr((list(labels), list(templates))).encode()).hexdigest()
        task = self._label_sets.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.create_task(self._encode_labels(labels, templates))
            self._label_sets[key] = task
        self._label_sets.move_to_end(key)
        while len(self._label_sets) > _LABEL_SETS:
            self._label_sets.popitem(last=False)
        return await asyncio.shield(task)  # another request may wait for the same labels

    def is_alive(self) -> bool:
        """False when a batch has been running for so long that it will not end."""
        longest = max(60.0, 4 * self._timeout_s)
        return max(self._images.busy_for(), self._texts.busy_for()) < longest

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._images.close()
        self._texts.close()

    async def _encode_image(
        self, item: bytes | SampleError, index: int
    ) -> NDArray[np.float32] | SampleError:
        if isinstance(item, SampleError):
            return item
        loop = asyncio.get_running_loop()
        try:
            pixels = await loop.run_in_executor(self._pool, self._decode, item, f"images[{index}]")
        except SampleError as error:
            return error
        (future,) = self._images.submit([pixels])
        return await future

    def _decode(self, data: bytes, name: str) -> NDArray[np.float32]:
        preprocess = self.model.preprocess
        try:
            return preprocess(
                decode_image(
                    data, name=name, max_pixels=self._max_pixels, reading=preprocess.reading
                )
            )
        except SampleError:
            raise
        except Exception as error:  # whatever it is, it concerns this image alone
            logger.exception("%s", name)
            raise SampleError(f"{name}: {type(error).__name__}: {error}") from None

    async def _encode_labels(
        self, labels: Sequence[str], templates: Sequence[str]
    ) -> NDArray[np.float32]:
        prompts = [template.replace("{}", label) for label in labels for template in templates]
        rows = np.stack(await self.encode_texts(prompts))
        mean_cd = rows.reshape(len(labels), len(templates), -1).mean(axis=1)
        return mean_cd / np.maximum(np.linalg.norm(mean_cd, axis=1, keepdims=True), 1e-12)
