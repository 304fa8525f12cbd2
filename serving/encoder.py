"""Pictures and texts to embeddings: decoding and tokenising in threads, towers in micro-batches.

While one batch runs through a tower the next pictures are decoded, so that neither waits for the
other. Pictures and texts share nothing but the CPU: each has its own threads, its own tower and its
own fair queues, where a request (its ``Ticket``) has a lane. What a request is given up for, by its
deadline or by its client, leaves the queues with it.
"""

from __future__ import annotations  # those of functions within others would be made anew each time

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ptft.errors import SampleError
from ptft.onnx.boxes import MORE
from ptft.onnx.golden import Golden, hold_golden
from ptft.onnx.model import OnnxModel
from ptft.onnx.trial_run import longest_row
from ptft.preprocess.frame import Frame
from serving.admission import Admission, Cost, Ticket
from serving.batcher import LONGEST_S, Batcher, Run
from serving.bodies import LARGE
from serving.cache import EmbeddingCache
from serving.labels import LabelCache
from serving.metrics import Metrics
from serving.pictures import Picture, Pictures, decoding_memory
from serving.pool import Pool
from serving.settings import Settings
from serving.waiting import all_or_none
from serving.warmup import MOST, MOST_ON_GPU, best_size

__all__ = ["AHEAD", "Encoder"]

AHEAD = 4
"""Pictures of a request that are decoded before a tower takes them."""

# the library would hand a list of one text to threads of its own, which come before the event loop
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_TEXTS_A_JOB = 32  # that are tokenised at once, of 8,192 characters together
_CHARACTERS_A_JOB = 8192
_TEXTS_AT_ONCE, _CHARACTERS_AT_ONCE = 4, 200  # tokenised in less time than a thread takes to begin
_S_A_CHARACTER = 2.5e-6  # CPU seconds of cleaning and tokenising, of the dearest kind
_CHARACTERS_A_TOKEN = 2  # fewer than in any language but those whose words are short anyway
_BYTES_A_VALUE = 12  # of a number in JSON

T = TypeVar("T")


class Encoder:
    """A model, asked asynchronously. All methods belong to one event loop.

    Args:
        model: what encodes.
        settings: threads and caps.
        admission: what costs are charged to.
        metrics: told of every batch, and what goes into it.
    """

    def __init__(
        self, model: OnnxModel, settings: Settings, admission: Admission, metrics: Metrics
    ) -> None:
        self.model = model
        self.pictures = Pictures(settings, model.preprocess)
        self._threads = settings.threads
        self._metrics = metrics
        self._decoding = Pool("decode", settings.threads, decoding_memory(settings))
        self._tokenising = Pool("tokenise", 1)
        # int8 files scale activations over the whole batch: an image's embedding would depend on
        # its neighbours, so they run one by one (on a CPU that costs little)
        self._size = 1 if model.precision == "int8" else settings.micro_batch
        threads = None if model.on_gpu else settings.threads

        def tower(kind: str, run: Run) -> Batcher:
            observe = partial(metrics.observe_batch, kind)
            most = self._size or 1
            return Batcher(kind, run, max_batch=most, observe=observe, threads=threads)

        self.images, self.texts = (
            tower("image", self._run_images),
            tower("text", model.encode_texts),
        )
        self.places = tower("places", self._run_places) if model.has_detector else None
        self.count_of_places = 0  # of a picture, known once some were looked at
        self.cache: EmbeddingCache | None = None
        if settings.cache_bytes:
            parts = (model.info.digest, model.precision, model.provider, settings.jpeg)
            self.cache = EmbeddingCache(settings.cache_bytes, *parts)
        self._labels = LabelCache(admission, self)
        self._threaded: list[Batcher | Pool] = [*self.towers, self._decoding, self._tokenising]

    def calibrate(self, golden: Golden) -> None:
        """Measure what a picture and a token cost, on the golden inputs, whose answers are held
        against the recorded ones; and how many to run at once where no setting says so. Blocks, so
        ahead of all traffic.

        Raises:
            ArtifactError: an answer is not the recorded one.
        """
        tokenizer, pixels = self.model.tokenizer, list(golden.pixels)
        tokens = tokenizer(golden.texts)
        golden.check_tokens(tokens)
        if self._size is None:
            most = MOST_ON_GPU if self.model.on_gpu else MOST
            (short,) = tokenizer(["a photo of a cat"])  # long ones have LONGEST_S
            for tower in self.towers:
                item = short if tower is self.texts else pixels[0]
                tower.max_batch = best_size(partial(tower.measure, item), most, LONGEST_S)
        width = int(tokenizer.lengths(tokens).max())
        image_nd = self.images.calibrate(pixels, len(pixels))
        text_td = self.texts.calibrate(list(tokens), len(tokens) * width)
        rows_npw = None
        if self.places is not None:
            rows_npw = self.places.calibrate(pixels, len(pixels))
            self.count_of_places = rows_npw.shape[1]
        hold_golden(self.model, golden, image_nd, text_td, rows_npw)
        # the largest that traffic will ask for, if it has not run yet: a model may not stand it
        row = longest_row(tokenizer)
        seen = len(tokens) if tokenizer.lengths(row[None])[0] <= width else 0
        for tower in self.towers:
            item, units, ran = row, row.size, seen
            if tower is not self.texts:
                item, units = pixels[0], 1
                ran = max(len(pixels), 0 if self._size else tower.max_batch)
            if (count := tower.most(units)) > ran:
                tower.measure(item, count)

    @property
    def towers(self) -> tuple[Batcher, ...]:
        """Every queue that something runs behind; a detector's is the last."""
        both = (self.images, self.texts)
        return both if self.places is None else (*both, self.places)

    def cost_of_pictures(self, pictures: Sequence[Picture | SampleError]) -> Cost:
        """What embedding them takes; what cannot be decoded takes nothing."""
        return self._cost_of_pictures(pictures, self.images, self._bytes_of_rows(1))

    def cost_of_places(self, pictures: Sequence[Picture | SampleError]) -> Cost:
        """What looking for things in them takes, before a query is compared."""
        assert self.places is not None
        row = 4 * (self.model.info.embed_dim + MORE)
        return self._cost_of_pictures(pictures, self.places, self.count_of_places * row)

    def _cost_of_pictures(
        self, pictures: Sequence[Picture | SampleError], tower: Batcher, each: int
    ) -> Cost:
        good = [one for one in pictures if isinstance(one, Picture)]
        height, width = self.model.preprocess.size
        decoding = sum(one.seconds for one in good) / self._threads
        return Cost(
            items=len(pictures),
            memory=min(len(good), AHEAD) * height * width * 3 + len(good) * each,
            work=decoding + len(good) * tower.seconds_a_unit,
            best_work=decoding + len(good) * tower.best_seconds_a_unit,
        )

    def cost_of_texts(self, count: int, characters: int, longest: int) -> Cost:
        """What embedding so many texts takes, of so many characters in all and in the longest;
        no items, since labels are none."""
        context = self.model.tokenizer.context_length
        tokens = count * context
        if self.model.tokenizer.trimmable:
            average = -(-characters // (count * _CHARACTERS_A_TOKEN))
            widest = min(context, 2 + longest // _CHARACTERS_A_TOKEN)
            tokens = max(count * min(context, 2 + average), widest)
        cleaning = characters * _S_A_CHARACTER
        return Cost(
            memory=characters + count * context * 8 + self._bytes_of_rows(count),
            work=tokens * self.texts.seconds_a_unit + cleaning,
            best_work=tokens * self.texts.best_seconds_a_unit + cleaning,
        )

    async def encode_pictures(
        self,
        ticket: Ticket,
        pictures: Sequence[Picture | SampleError],
        readable: asyncio.Event | None = None,
        *,
        keep: bool = False,
    ) -> list[NDArray[np.float32] | SampleError]:
        """Pictures to embeddings (D,), each for itself: one that fails fails alone.

        Args:
            readable: set when the first is decoded.
            keep: answer from the cache, and put into it.
        """
        cache = self.cache if keep else None
        ahead = asyncio.Semaphore(AHEAD) if len(pictures) > AHEAD else nullcontext()

        async def one(picture: Picture | SampleError) -> NDArray[np.float32] | SampleError:
            if isinstance(picture, SampleError):
                return picture
            key, kept = await self._look_up(ticket, cache, picture)
            if kept is None:
                async with ahead:
                    pixels = await self.decode(ticket, picture)
                    if isinstance(pixels, SampleError):
                        return pixels
                    if readable is not None:
                        readable.set()
                    kept = await self.embed(ticket, pixels)
                if cache is not None:
                    cache.put(key, kept)
            elif readable is not None:
                readable.set()
            return kept

        return list(await all_or_none(one(picture) for picture in pictures))

    def decode(
        self, ticket: Ticket, picture: Picture
    ) -> Coroutine[None, None, NDArray[np.uint8] | SampleError]:
        """One picture to pixels, or why there are none."""
        return self._decode(ticket, picture, self.pictures.decode)

    def decode_framed(
        self, ticket: Ticket, picture: Picture
    ) -> Coroutine[None, None, tuple[NDArray[np.uint8], Frame] | SampleError]:
        """The same, and how the upright picture lies in them."""
        return self._decode(ticket, picture, self.pictures.decode_framed)

    def _decode(
        self, ticket: Ticket, picture: Picture, decode: Callable[[Picture], T]
    ) -> Coroutine[None, None, T]:
        self._metrics.pixels.inc(picture.header.pixels)
        run = partial(self._decoding.run, ticket, decode, picture, phases=ticket.phases)
        return run(memory=picture.memory, seconds=picture.seconds)

    async def embed(self, ticket: Ticket, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels (H, W, 3) to an embedding (D,)."""
        (future,) = self.images.submit(ticket, [pixels], phases=ticket.phases)
        return await future

    async def _look_up(
        self, ticket: Ticket, cache: EmbeddingCache | None, picture: Picture
    ) -> tuple[bytes, NDArray[np.float32] | None]:
        """A picture's key, and what is kept under it."""
        if cache is None:
            return b"", None
        if len(picture.data) <= LARGE:
            key = cache.key("image", picture.data)
        else:
            key = await self._decoding.run(ticket, cache.key, "image", picture.data)
        found = cache.get(key)
        self._metrics.observe_cache("image", hits=found is not None, misses=found is None)
        return key, None if found is None else found.embedding

    async def encode_texts(
        self, ticket: Ticket, texts: Sequence[str], *, keep: bool = False
    ) -> list[NDArray[np.float32]]:
        """Texts to embeddings (D,).

        Args:
            keep: answer from the cache, and put into it.
        """
        cache = self.cache if keep else None
        if cache is None:
            return [row for row, _ in await self._encode_texts(ticket, texts)]
        keys = [cache.key("text", text.encode("utf-8", "surrogatepass")) for text in texts]
        found = [cache.get(key) for key in keys]
        ticket.tokens += sum(one.tokens for one in found if one is not None)
        missing = [index for index, one in enumerate(found) if one is None]
        hits = len(texts) - len(missing)
        self._metrics.observe_cache("text", hits=hits, misses=len(missing))
        new = await self._encode_texts(ticket, [texts[index] for index in missing])
        rows = [one.embedding if one is not None else None for one in found]
        for index, (row, tokens) in zip(missing, new, strict=True):
            cache.put(keys[index], row, tokens)
            rows[index] = row
        return rows  # type: ignore[return-value]

    async def _encode_texts(
        self, ticket: Ticket, texts: Sequence[str]
    ) -> list[tuple[NDArray[np.float32], int]]:
        """Embeddings (D,), and the tokens of each text."""
        if len(texts) <= _TEXTS_AT_ONCE and sum(map(len, texts)) <= _CHARACTERS_AT_ONCE:
            ticket.phases.enter("decode")
            jobs = [self._tokenise(texts)]
            ticket.phases.leave("decode")
        else:
            jobs = await all_or_none(
                self._tokenising.run(ticket, self._tokenise, part, phases=ticket.phases)
                for part in _parts(texts)
            )
        tokens = sum(sum(lengths) for _, lengths in jobs)
        ticket.tokens += tokens
        self._metrics.tokens.inc(tokens)
        futures = [
            future
            for rows, lengths in jobs
            for future in self.texts.submit(ticket, rows, lengths, ticket.phases)
        ]
        counts = [count for _, lengths in jobs for count in lengths]
        return list(zip(await all_or_none(futures), counts, strict=True))

    async def encode_labels(
        self, labels: Sequence[str], templates: Sequence[str], caller: str
    ) -> NDArray[np.float32]:
        """Labels (C) in templates to (C, D), see :class:`serving.labels.LabelCache`."""
        return await self._labels.get(labels, templates, caller)

    @property
    def decoding_memory(self) -> tuple[int, int]:
        """Bytes that decoding is estimated to take now, and its budget."""
        return self._decoding.memory

    def busy_for(self) -> float:
        """Seconds of the oldest batch or decoding that is running."""
        return max(part.busy_for() for part in self._threaded)

    def close(self) -> None:
        """Begin nothing more."""
        for part in self._threaded:
            part.close()

    def _bytes_of_rows(self, count: int) -> int:
        """Of embeddings, and of the JSON that they become."""
        return count * self.model.info.embed_dim * (4 + _BYTES_A_VALUE)

    def _run_images(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return self.model.encode_images(self.model.preprocess.normalise(np.stack(pixels)))

    def _run_places(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return self.model.detect_places(self.model.preprocess.normalise(np.stack(pixels)))

    def _tokenise(self, texts: Sequence[str]) -> tuple[list[NDArray[np.int64]], list[int]]:
        tokens = self.model.tokenizer(texts)
        return list(tokens), self.model.tokenizer.lengths(tokens).tolist()


def _parts(texts: Sequence[str]) -> list[Sequence[str]]:
    """Texts in runs that take a moment each to tokenise."""
    found: list[list[str]] = []
    room = 0
    for text in texts:
        if not found or len(found[-1]) == _TEXTS_A_JOB or room < len(text):
            found.append([])
            room = _CHARACTERS_A_JOB
        found[-1].append(text)
        room -= len(text)
    return found  # type: ignore[return-value]
