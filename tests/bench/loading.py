"""Training pictures a CPU-second: ptft against open_clip's WebDataset pipeline and bare decoding.

Pictures are cut from photographs that scikit-learn and matplotlib bring (china, flower,
grace_hopper): JPEGs of 256 to 512 pixels a side, quality 80 to 94, with captions of 8 to 12 words.
Each reader has two workers, on the same tars, and gives batches of 64 at 224 pixels with a random
crop of 0.9 to 1.0: open_clip's is open_clip_train.data.get_wds_dataset with its own training
transform and tokenizer, its shuffle buffer made small so that reading the tars is counted too. The
rounds are interleaved. What counts is images a CPU-second of all processes, from the third batch on
(workers read ahead alike at both ends), since a shared machine gives every process another share of
the clock; images a second are printed beside it. open_clip normalises in its workers; ptft on the
device, so ``normalise`` is what that costs where the device is this CPU.

``packed``: photographs of 1024 to 1600 pixels (tiles of the same three, at their own scale) as they
are, and after `ptft data pack --short-side 256`, trained on at 224 pixels.
"""

import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import sklearn.datasets
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ptft.compat import import_open_clip
from ptft.data import BatchSpec, open_split, rng_for, train_batches
from ptft.data.packing.pack import PackSettings, pack
from ptft.data.reading.decode import Encoded, decode, draw_crop, train_pixels
from ptft.data.sample import SampleSet
from ptft.preprocess import TextTokenizer, clip_bpe_json
from ptft.preprocess.images import ImagePreprocess
from ptft.recipe import AugmentSection
from ptft.recipe.data import ShardsData
from tests.bench._processes import cpu_seconds

WORKERS, SIDE, SHARDS = 2, 224, 4
SECTION = AugmentSection(crop_scale=(0.9, 1.0))
PREPROCESS = ImagePreprocess(size=(SIDE, SIDE))


@dataclass(frozen=True)
class Size:
    """Of what is measured.

    Attributes:
        warm, measured: batches.
        batch: pictures of one; of photographs as they are, a quarter.
        samples: pictures of 256 to 512 pixels in a shard.
        large: photographs of 1024 to 1600.
    """

    rounds: int = 5
    warm: int = 2
    measured: int = 14
    batch: int = 64
    samples: int = 128
    large: int = 48

    @property
    def batches(self) -> int:
        """As many as a reader may ask ahead of what is measured."""
        return self.warm + self.measured + 2 * WORKERS + 8


Build = Callable[[], Iterator[int]]
"""Starts a reader that yields how many pictures each of its batches has."""


@dataclass(frozen=True)
class Rate:
    """Pictures a CPU-second and a second."""

    cpu: float
    wall: float


def photographs() -> list[Image.Image]:
    folder = Path(sklearn.datasets.__file__).parent / "images"
    paths = [folder / "china.jpg", folder / "flower.jpg"]
    paths.append(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    return [Image.open(path).convert("RGB") for path in paths]


def cut(rng: np.random.Generator, photos: list[Image.Image], low: int, high: int) -> Image.Image:
    """A random part of one of them, of ``low`` to ``high`` pixels a side where it has so many."""
    photo = photos[int(rng.integers(len(photos)))]
    width, height = (int(rng.integers(min(low, n), min(high, n) + 1)) for n in photo.size)
    left = int(rng.integers(0, photo.width - width + 1))
    top = int(rng.integers(0, photo.height - height + 1))
    return photo.crop((left, top, left + width, top + height))


def tiled(rng: np.random.Generator, photos: list[Image.Image]) -> Image.Image:
    """A picture of 1024 to 1600 pixels a side with the detail of photographs everywhere."""
    width, height = (int(rng.integers(1024, 1601)) for _ in range(2))
    sheet = Image.new("RGB", (width, height))
    for left in range(0, width, 400):
        for top in range(0, height, 400):
            sheet.paste(cut(rng, photos, 400, 400), (left, top))
    return sheet


def write_shards(
    folder: Path, count: int, shards: int, draw_crop: Callable[[np.random.Generator], Image.Image]
) -> str:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    words = [
        "a",
        "photo",
        "of",
        "the",
        "old",
        "stone",
        "tower",
        "with",
        "many",
        "small",
        "red",
        "windows",
        "in",
        "rain",
    ]
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for number in range(count // shards):
                stream = io.BytesIO()
                draw_crop(rng).save(stream, "JPEG", quality=int(rng.integers(80, 95)))
                caption = " ".join(rng.choice(words, int(rng.integers(8, 13))))
                for extension, data in (("jpg", stream.getvalue()), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{number:06d}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return str(folder / f"{{000..{shards - 1:03d}}}.tar")


def by_ptft(
    samples: SampleSet, batch: int, batches: int, *, normalise: bool = False
) -> Iterator[int]:
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (PREPROCESS.mean, PREPROCESS.std))
    for read in train_batches(
        samples,
        BatchSpec(
            preprocess=PREPROCESS,
            size=batch,
            tokenizer=TextTokenizer(clip_bpe_json(), context_length=77),
            augment=SECTION,
        ),
        start=0,
        end=batch * batches,
        workers=WORKERS,
    ):
        if normalise:
            read.images.permute(0, 3, 1, 2).float().sub_(mean).div_(std)
        yield len(read.images)


class Decoding(Dataset[int]):
    """Batches of nothing but decoded pictures, which are dropped."""

    def __init__(self, samples: SampleSet, size: Size) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return self.size.batches

    def __getitem__(self, number: int) -> int:
        for place in range(number * self.size.batch, (number + 1) * self.size.batch):
            picture = self.samples[place % len(self.samples)].picture
            assert isinstance(picture, Encoded)
            picture.pixels()
        return self.size.batch


def by_decoding(samples: SampleSet, size: Size) -> Iterator[int]:
    loader = DataLoader(
        Decoding(samples, size),
        batch_size=None,
        num_workers=WORKERS,
        multiprocessing_context="forkserver",
    )
    yield from loader


def by_open_clip(tars: str, transform: Any, tokenizer: Any, size: Size) -> Iterator[int]:
    from open_clip_train import data
    from webdataset.tariterators import tar_file_expander

    data._SAMPLE_SHUFFLE_SIZE = data._SAMPLE_SHUFFLE_INITIAL = size.batch
    # webdataset 1.0 tells where a shard ends, which this release of open_clip does not expect
    data.tar_file_expander = partial(tar_file_expander, eof_value=None)
    settings = SimpleNamespace(
        train_data=tars,
        dataset_resampled=False,
        train_num_samples=size.batch * size.batches,
        train_data_upsampling_factors=None,
        seed=0,
        batch_size=size.batch,
        workers=WORKERS,
        world_size=1,
    )
    info = data.get_wds_dataset(settings, transform, is_train=True, tokenizer=tokenizer)
    for images, _ in info.dataloader:
        assert images.shape[1:] == (3, SIDE, SIDE) and images.dtype == torch.float32
        yield len(images)


def measure(build: Build, warm: int, measured: int) -> Rate:
    batches = build()
    for _ in range(warm):
        next(batches)
    cpu, wall = cpu_seconds(os.getpid()), time.perf_counter()
    count = sum(islice(batches, measured))
    cpu, wall = cpu_seconds(os.getpid()) - cpu, time.perf_counter() - wall
    batches.close()  # type: ignore[attr-defined]
    tick = 1 / os.sysconf("SC_CLK_TCK")  # a process that worked for less is told to have for none
    return Rate(count / max(cpu, tick), count / wall)


def difference(samples: SampleSet) -> float:
    """Mean absolute difference of what training sees from Pillow's pixels, of 255."""
    off = []
    for index in range(0, len(samples), 4):
        picture = samples[index].picture
        assert isinstance(picture, Encoded)
        decoded = decode(picture, SECTION)
        drawn = draw_crop(decoded, rng_for(0, index), SECTION)
        fast = train_pixels(PREPROCESS, decoded, drawn, SECTION)
        slow = PREPROCESS.augment(picture.image(), rng_for(0, index), SECTION)
        off.append(np.abs(fast.astype(int) - slow).mean())
    return float(np.mean(off))


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    size = Size(rounds=1, warm=1, measured=2, samples=8, large=4, batch=8) if smoke else Size()
    torch.set_num_threads(1)
    open_clip = import_open_clip()
    transform = open_clip.image_transform(SIDE, is_train=True, aug_cfg={"scale": (0.9, 1.0)})
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    photos = photographs()
    with tempfile.TemporaryDirectory() as home:
        tars = write_shards(
            Path(home) / "s", SHARDS * size.samples, SHARDS, lambda rng: cut(rng, photos, 256, 512)
        )
        large = ShardsData(
            train=write_shards(Path(home) / "l", size.large, 1, lambda rng: tiled(rng, photos))
        )
        packed = pack(large, Path(home) / "packed", PackSettings(256), workers=0)
        samples = open_split(ShardsData(train=tars), "train")
        originals, small = open_split(large, "train"), open_split(packed.section, "train")
        whole, few = (size.batch, size.batches), min(8, size.measured)
        readers: dict[str, tuple[Build, int]] = {
            "ptft": (lambda: by_ptft(samples, *whole), size.measured),
            "ptft, normalise": (lambda: by_ptft(samples, *whole, normalise=True), size.measured),
            "open_clip": (lambda: by_open_clip(tars, transform, tokenizer, size), size.measured),
            "decoding alone": (lambda: by_decoding(samples, size), size.measured),
            "originals": (lambda: by_ptft(originals, size.batch // 4, size.batches), few),
            "packed": (lambda: by_ptft(small, *whole), size.measured),
        }
        rates: dict[str, list[Rate]] = {name: [] for name in readers}
        for _ in range(size.rounds):
            for name, (build, measured) in readers.items():
                rates[name].append(measure(build, size.warm, measured))
        off = difference(samples)
    return _report(rates, off, size)


def _report(rates: dict[str, list[Rate]], off: float, size: Size) -> dict[str, float]:
    def ratio(one: str, other: str) -> float:
        rounds = zip(rates[one], rates[other], strict=True)
        return round(median(a.cpu / b.cpu for a, b in rounds), 3)

    print(f"{WORKERS} workers, batches of {size.batch} at {SIDE} pixels,", end=" ")
    print(f"median of {size.rounds} rounds")
    print(f"{'reader':<18}{'images/CPU-s':>14}{'images/s':>12}")
    figures: dict[str, float] = {}
    for name, rounds in rates.items():
        cpu, wall = median(r.cpu for r in rounds), median(r.wall for r in rounds)
        print(f"{name:<18}{cpu:>14.0f}{wall:>12.0f}")
        figures[f"{name.replace(', ', '_').replace(' ', '_')}_images_per_cpu_s"] = round(cpu, 1)
    print(f"mean difference from Pillow: {off:.4f} of 255")
    return figures | {
        "ratio_to_open_clip": ratio("ptft", "open_clip"),
        "ratio_with_normalise": ratio("ptft, normalise", "open_clip"),
        "share_of_decoding": ratio("ptft", "decoding alone"),
        "packed_ratio": ratio("packed", "originals"),
        "mean_abs_diff_from_pil": round(off, 4),
    }


BARS = {
    "ratio_to_open_clip": (">=", 2.5),
    "share_of_decoding": (">=", 0.45),
    "packed_ratio": (">=", 5.0),
    "mean_abs_diff_from_pil": ("<=", 0.1),
}
