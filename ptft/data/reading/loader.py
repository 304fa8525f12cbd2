"""Batches of a sample set, read ahead in worker processes that change no result.

A job is a range of positions (training) or of samples (evaluation). Each job is read as a whole by
one process and depends on nothing but itself, and jobs come back in their order.
"""

import os
import pickle
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ptft.data.boxes.read import BoxReader, EvalBoxReader
from ptft.data.mapped import pickle_mapped
from ptft.data.reading.batch import Batch, BatchSpec, EvalBatch, MarkedBatch, PixelBlock, Skipped
from ptft.data.reading.order import Order
from ptft.data.reading.read import EvalReader, PixelReader, TrainReader
from ptft.data.reading.shared_buffers import SharedBuffers, SharedReader
from ptft.data.sample import SampleSet
from ptft.errors import DataError
from ptft.forking import of_the_group_no_more, server_context
from ptft.preprocess.images import Augmentation, ImagePreprocess
from ptft.recipe.reads import Reads

__all__ = [
    "Reader",
    "Workers",
    "eval_batches",
    "marked_batches",
    "pixel_blocks",
    "read_ahead",
    "train_batches",
    "worker_count",
]

Workers = int | Literal["auto"]
"""Processes that read ahead, or ``auto``; 0 reads in the caller's own."""

_AHEAD = 2  # batches that each worker has ready
_MOST = 8  # workers that ``auto`` takes at most; decoding feeds one accelerator with fewer
_FEW = 4  # batches; starting a worker takes longer than reading so few


def train_batches(
    samples: SampleSet,
    spec: BatchSpec,
    *,
    start: int,
    end: int,
    workers: Workers = "auto",
) -> Iterator[Batch]:
    """This rank's part of each global batch of a run, from position ``start`` until ``end``.

    The global batches are the same at any ``spec.world`` and ``workers`` and wherever the run was
    interrupted. Each epoch visits each sample once, unless the set resamples or mixes others. A
    sample that cannot be read is replaced by another, drawn by the seed, and named in
    ``Batch.skipped``.

    Args:
        samples: the training set.
        spec: what batches are made of.
        start: samples seen so far.
        end: samples to have seen at the end. Batches are always full: the last may pass it.
        workers: processes that read ahead.

    Raises:
        DataError: (on iteration) no sample could be read, or a worker died.
    """
    made = BoxReader if spec.boxes else TrainReader
    reader = made(samples, samples.order(spec.seed, spec.order), spec)
    first = spec.rank * spec.share
    jobs = _Jobs(start + first, end + first, spec.size, spec.share)
    count = worker_count(workers, samples, len(jobs), spec.world)
    if count == 0 or not spec.decodes:
        return read_ahead(reader, jobs, count)
    # read ahead by each worker, in use, waiting beside it for the device, and just let go
    shape = (spec.share, *spec.preprocess.size, 3)
    buffers = SharedBuffers(min(count * _AHEAD + 3, len(jobs)), shape)
    return _from_buffers(reader, buffers, jobs, count)


def eval_batches(
    samples: SampleSet,
    *,
    preprocess: ImagePreprocess,
    batch: int,
    workers: Workers = "auto",
    reads: Reads = "image",
) -> Iterator[EvalBatch]:
    """All samples of a set in its order, ``batch`` at a time; those that cannot be read, or lack
    what ``reads`` says, are left out and named in ``EvalBatch.skipped``. No batch is empty.

    Raises:
        DataError: (on iteration) no sample could be read, or a worker died.
    """
    jobs = _Jobs(0, len(samples), batch, batch, stop=len(samples))
    reader = EvalReader(samples, preprocess, reads)
    results = read_ahead(reader, jobs, worker_count(workers, samples, len(jobs), 1))
    return _without_empty(results, len(samples))


def marked_batches(
    samples: SampleSet,
    *,
    preprocess: ImagePreprocess,
    batch: int,
    workers: Workers = "auto",
) -> Iterator[MarkedBatch]:
    """All samples of a set in its order with their boxes, ``batch`` at a time; those that cannot be
    read are left out and named. A batch may be empty.

    Raises:
        DataError: (on iteration) a worker died.
    """
    jobs = _Jobs(0, len(samples), batch, batch, stop=len(samples))
    reader = EvalBoxReader(samples, preprocess)
    return read_ahead(reader, jobs, worker_count(workers, samples, len(jobs), 1))


def pixel_blocks(
    samples: SampleSet,
    blocks: Sequence[range],
    *,
    preprocess: ImagePreprocess,
    augment: Augmentation | None,
    workers: Workers = "auto",
) -> Iterator[PixelBlock]:
    """Pictures of blocks of samples, as a training run whose augmentation leaves nothing to chance
    takes them; a block whose pictures cannot be read comes empty."""
    spec = BatchSpec(preprocess, size=1, augment=augment)
    reader = TrainReader(samples, Order(len(samples), 0), spec)
    count = worker_count(workers, samples, len(blocks), 1)
    return read_ahead(PixelReader(reader), blocks, count)


def worker_count(workers: Workers, samples: SampleSet, jobs: int, world: int) -> int:
    """How many processes read ahead.

    ``auto`` is half of this process's share of the cores, at most 8; none where there is little to
    read. A set that is read in order (``SampleSet.in_order``) has one at most, since each
    worker would read all of it.
    """
    if workers != "auto":
        return workers
    if jobs <= _FEW:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(1 if samples.in_order else _MOST, max(1, (cores or 1) // (2 * world)))


class Reader(Protocol):
    """Reads what a job asks for; it is pickled, and depends on nothing but itself and the job."""

    def read(self, job: Any, /) -> Any: ...


class _Jobs(Sampler[range]):
    """Ranges of ``share`` numbers that begin at ``first`` and every ``step`` from there, while
    below ``end``; none passes ``stop``."""

    def __init__(
        self, first: int, end: int, step: int, share: int, stop: int | None = None
    ) -> None:
        self.starts = range(first, end, step)
        self.share = share
        self.stop = stop

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[range]:
        for start in self.starts:
            end = start + self.share
            yield range(start, end if self.stop is None else min(end, self.stop))


class _Results(Dataset[Any]):
    """A reader in the form that torch's DataLoader wants: an item is what one job gives. A process
    gets it without its large arrays, which it maps."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getstate__(self) -> bytes:
        return pickle_mapped(self.reader)

    def __setstate__(self, pickled: bytes) -> None:
        self.reader = pickle.loads(pickled)  # noqa: S301 - the run's own, no file's

    def __getitem__(self, job: Any) -> Any:
        try:
            return self.reader.read(job)
        except DataError as error:
            return error  # raised in the parent, without the worker's traceback around it


def read_ahead(reader: Reader, jobs: Iterable[Any], workers: int) -> Generator[Any]:
    """What ``reader`` gives for each job, in order, read ahead by processes.

    Raises:
        DataError: (on iteration) the reader raised it, or a worker died.
    """
    if workers == 0:
        for job in jobs:
            yield reader.read(job)
        return
    loader = DataLoader(
        _Results(reader),
        batch_size=None,
        sampler=jobs,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        multiprocessing_context=server_context("ptft.data.reading.loader"),
        generator=torch.Generator(),  # the loader draws from it; the run's own must not notice
    )
    results = iter(loader)
    try:
        while True:
            try:
                result = next(results)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise DataError(
                    f"a process that reads data died ({error}); run.workers: 0 reads without any"
                ) from None
            if isinstance(result, DataError):
                raise result
            yield result
    finally:
        # the processes are asked to end now, not when this generator's frame is collected
        shut_down = getattr(results, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()


def _from_buffers(
    reader: TrainReader | BoxReader, buffers: SharedBuffers, jobs: Iterable[range], workers: int
) -> Iterator[Batch]:
    """The batches of ``jobs``, their pictures in buffers."""
    with closing(
        read_ahead(SharedReader(reader, buffers), buffers.assign(jobs), workers)
    ) as results:
        for read in results:
            yield buffers.receive(read)


def _start_worker(_number: int) -> None:
    """One thread a worker. Torch's own watch looks at the process that it was forked from, which is
    the server: it and the workers would outlive a run that is killed."""
    torch.set_num_threads(1)
    of_the_group_no_more()


def _as_it_is(result: Any) -> Any:
    return result


def _without_empty(results: Iterator[EvalBatch], count: int) -> Iterator[EvalBatch]:
    """Hand what an empty batch skipped to the batch before it, or else to the one after it."""
    waiting: EvalBatch | None = None
    skipped: Skipped = []
    with closing(results):  # type: ignore[type-var]
        for batch in results:
            skipped += batch.skipped
            if len(batch.indices) == 0:
                continue
            if waiting is not None:
                yield waiting
            waiting = batch
            batch.skipped, skipped = skipped, []
    if waiting is None:
        if not skipped:
            return
        raise DataError(
            f"none of {count} samples could be read; first: {skipped[0].name}: {skipped[0].reason}"
        )
    waiting.skipped += skipped
    yield waiting
