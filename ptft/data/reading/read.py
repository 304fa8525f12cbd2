"""How the samples of a batch are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from ptft.data.hashing import fraction, text_id
from ptft.data.reading.batch import (
    Batch,
    BatchSpec,
    EvalBatch,
    KeptFeatures,
    PixelBlock,
    Pixels,
    Skip,
    Skipped,
    Tokenizer,
)
from ptft.data.reading.decode import (
    CropDraw,
    Decoded,
    Encoded,
    decode,
    draw_crop,
    stack,
    train_pixels,
)
from ptft.data.reading.order import RunOrder, rng_for
from ptft.data.sample import Sample, SampleSet
from ptft.errors import DataError, SampleError
from ptft.preprocess.images import ImagePreprocess
from ptft.recipe.reads import Reads

__all__ = ["EvalReader", "PixelReader", "TrainReader", "none_readable", "skip_of"]

_CAPTION = 0x6361  # keeps the draw of a caption apart
_TOGETHER = 8  # samples whose pictures lie decoded in memory at once


@dataclass(frozen=True)
class _Told:
    """A sample without its picture, see ``Sample``."""

    name: str
    captions: tuple[str, ...]
    label: int | None
    picture: int = 0


_T = TypeVar("_T")
_Read = tuple[_Told, np.ndarray]
_NOTHING = np.empty(0, np.uint8)  # in place of a picture that is not read
_Picture = Encoded | Image.Image | np.ndarray


@dataclass(frozen=True)
class TrainReader:
    """Reads the samples at given positions of a run.

    With a tokenizer captions are needed. Where there are features of the pictures, no picture is
    read; likewise texts are not tokenised.
    """

    samples: SampleSet
    order: RunOrder
    spec: BatchSpec

    def read(self, positions: range, out: torch.Tensor | None = None) -> Batch:
        """Read a batch; its pictures go to ``out`` where that is given.

        Raises:
            DataError: a sample could not be read, nor could any that may replace it.
        """
        skipped: Skipped = []
        read: list[_Read] = []
        for start in range(0, len(positions), _TOGETHER):
            read += self._read_together(positions[start : start + _TOGETHER], skipped)
        samples = [sample for sample, _ in read]
        batch = Batch(
            images=self._images([picture for _, picture in read], out),
            tokens=None,
            caption_ids=None,
            labels=_labels(self.samples, samples),
            names=[sample.name for sample in samples],
            skipped=skipped,
        )
        if self.spec.tokenizer is not None:
            self._put_texts(batch, samples, positions, self.spec.tokenizer)
        return batch

    def _images(
        self, rows: list[np.ndarray], out: torch.Tensor | None
    ) -> Pixels | KeptFeatures | None:
        if not self.spec.pictures:
            return None
        if self.spec.image_features is not None:
            return KeptFeatures(torch.from_numpy(np.stack(rows)))
        return stack(rows, out)

    def _put_texts(
        self, batch: Batch, samples: list[_Told], positions: range, tokenizer: Tokenizer
    ) -> None:
        """Draw a caption of each sample and put them into the batch, as every tower reads them."""
        captions = [
            self._draw_caption(sample, position)
            for sample, position in zip(samples, positions, strict=True)
        ]
        texts = [text_id(caption) for caption in captions]
        pictures = [sample.picture for sample in samples]
        batch.caption_ids = torch.tensor([texts, pictures], dtype=torch.int64).T.contiguous()
        kept, teachers = self.spec.text_features, self.spec.teacher_tokenizer
        if kept is None:
            batch.tokens = torch.from_numpy(tokenizer(captions))
        else:
            batch.tokens = KeptFeatures(torch.from_numpy(kept.rows(np.array(texts, np.int64))))
        if teachers is not None:
            batch.teacher_tokens = torch.from_numpy(teachers(captions))

    def _read_together(self, positions: range, skipped: Skipped) -> list[_Read]:
        """The samples at some positions, one step after the other for all of them: what a step
        needs stays in the processor's cache, which saves a fifth of the time."""
        indices = [self._place(position) for position in positions]
        taken = [_tried(self._take, index) for index in indices]
        decoded = [
            one if isinstance(one, SampleError) else _tried(self._decode, one[1]) for one in taken
        ]
        drawn = [
            None if isinstance(picture, SampleError) else self._draw(picture, position)
            for position, picture in zip(positions, decoded, strict=True)
        ]
        read: list[_Read] = []
        for number, (one, picture) in enumerate(zip(taken, decoded, strict=True)):
            done: np.ndarray | SampleError
            if isinstance(picture, SampleError):
                done = picture
            else:
                done = _tried(self._finish, picture, drawn[number])
            if isinstance(done, SampleError):
                skipped.append(skip_of(self.samples.name(indices[number]), done))
                read.append(self._replace(positions[number], skipped))
            else:
                assert not isinstance(one, SampleError), "what was not taken is not finished"
                read.append((one[0], done))
        return read

    def _place(self, position: int) -> int:
        self.samples.look_ahead(self.order, position)
        return self.order[position]

    def _replace(self, position: int, skipped: Skipped) -> _Read:
        """The first sample that can be read of those that stand in for the one at ``position``."""
        tried = 1
        for index in self.order.replacements(position):
            tried += 1
            try:
                told, picture = self._take(index)
                decoded = self._decode(picture)
                return told, self._finish(decoded, self._draw(decoded, position))
            except SampleError as error:
                skipped.append(skip_of(self.samples.name(index), error))
        raise none_readable(tried, skipped[-tried])

    def _take(self, index: int) -> tuple[_Told, _Picture]:
        """A sample with its encoded picture, with the features of it, or with nothing of it."""
        if not self.spec.decodes:
            told = self._told(index, self.samples.name(index), *self.samples.describe(index))
            self._check_use(told)
            kept = self.spec.image_features
            return told, _NOTHING if kept is None else kept.row(index)
        sample = self.samples[index]
        told = self._told(index, sample.name, sample.captions, sample.label)
        self._check_use(told)
        return told, sample.picture

    def _told(self, index: int, name: str, captions: tuple[str, ...], label: int | None) -> _Told:
        return _Told(name, captions, label, self.samples.picture_of(index))

    def _decode(self, picture: _Picture) -> Decoded:
        """Features are ready as they are."""
        if isinstance(picture, np.ndarray):
            return picture
        return decode(picture, self.spec.augment, self.spec.preprocess.reading)

    def _draw(self, picture: Decoded, position: int) -> CropDraw | None:
        """What chance holds for a picture at a position; None for features and without chance."""
        if self.spec.augment is None or not self.spec.decodes:
            return None
        return draw_crop(picture, rng_for(self.order.seed, position), self.spec.augment)

    def _finish(self, picture: Decoded, drawn: CropDraw | None) -> np.ndarray:
        """uint8 (H, W, 3), augmented as drawn; features as they are."""
        if isinstance(picture, np.ndarray) and not self.spec.decodes:
            return picture
        if self.spec.augment is None or drawn is None:
            assert isinstance(picture, Image.Image)
            return self.spec.preprocess.pixels(picture)
        return train_pixels(self.spec.preprocess, picture, drawn, self.spec.augment)

    def _check_use(self, sample: _Told) -> None:
        if self.spec.tokenizer is not None:
            _check_caption(sample)
        if self.spec.needs_label and sample.label is None:
            raise SampleError(f"{sample.name}: it has no label", "empty")

    def pixels(self, sample: Sample, position: int) -> np.ndarray:
        """uint8 (H, W, 3), augmented as at a position."""
        picture = self._decode(sample.picture)
        return self._finish(picture, self._draw(picture, position))

    def _draw_caption(self, sample: _Told, position: int) -> str:
        chance = fraction(self.order.seed, _CAPTION, position)
        return sample.captions[int(chance * len(sample.captions))]


@dataclass(frozen=True)
class PixelReader:
    """Reads the pictures of given samples as ``reader`` takes them, which augments nothing."""

    reader: TrainReader

    def read(self, indices: range) -> PixelBlock:
        """Read a block; there may be no picture in it."""
        pixels: list[np.ndarray] = []
        unreadable: dict[int, SampleError] = {}
        for index in indices:
            try:
                pixels.append(self.reader.pixels(self.reader.samples[index], index))
            except SampleError as error:
                unreadable[index] = error
        empty = np.zeros((0, *self.reader.spec.preprocess.size, 3), np.uint8)
        images = torch.from_numpy(np.stack(pixels) if pixels else empty)
        return PixelBlock(images, indices, unreadable)


@dataclass(frozen=True)
class EvalReader:
    """Reads given samples of a set as they are, those parts that are wanted."""

    samples: SampleSet
    preprocess: ImagePreprocess
    reads: Reads = "image"

    def read(self, indices: range) -> EvalBatch:
        """Read a batch; it may be empty."""
        skipped: Skipped = []
        kept: list[int] = []
        samples: list[_Told] = []
        pixels: list[np.ndarray] = []
        for index in indices:
            try:
                sample, picture = self._read(index)
            except SampleError as error:
                skipped.append(skip_of(self.samples.name(index), error))
                continue
            kept.append(index)
            samples.append(sample)
            if picture is not None:
                pixels.append(picture)
        empty = np.zeros((0, *self.preprocess.size, 3), np.uint8)
        images = torch.from_numpy(np.stack(pixels) if pixels else empty)
        return EvalBatch(
            images=None if self.reads == "text" else images,
            indices=torch.tensor(kept, dtype=torch.int64),
            captions=[sample.captions for sample in samples],
            labels=_labels(self.samples, samples),
            skipped=skipped,
        )

    def _read(self, index: int) -> tuple[_Told, np.ndarray | None]:
        if self.reads == "text":
            told = _Told(self.samples.name(index), *self.samples.describe(index))
            _check_caption(told)
            return told, None
        sample = self.samples[index]
        told = _Told(sample.name, sample.captions, sample.label)
        if self.reads == "both":
            _check_caption(told)
        return told, self.preprocess.pixels(sample.decoded(self.preprocess.reading))


def _check_caption(sample: _Told) -> None:
    if not sample.captions:
        raise SampleError(f"{sample.name}: it has no caption", "empty")


def _tried(step: Callable[..., _T], *arguments: Any) -> _T | SampleError:
    """What a step gives, or what it says of the sample."""
    try:
        return step(*arguments)
    except SampleError as error:
        return error


def _labels(samples: SampleSet, read: Sequence[_Told]) -> torch.Tensor | None:
    if samples.classes is None:
        return None
    labels = [-1 if sample.label is None else sample.label for sample in read]
    return torch.tensor(labels, dtype=torch.int64)


def skip_of(name: str, error: SampleError) -> Skip:
    """What is told of a sample that could not be read."""
    return Skip(name, str(error).removeprefix(f"{name}: "), error.fault)


def none_readable(tried: int, first: Skip) -> DataError:
    """Of a sample that could not be read, nor any that may replace it."""
    return DataError(f"none of {tried} samples could be read; first: {first.name}: {first.reason}")
