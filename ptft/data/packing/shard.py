"""One shard of a pack: samples read, large pictures made smaller, a tar written."""

import io
import os
import signal
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from ptft.data.fields.field_set import FieldSet
from ptft.data.reading.decode import Encoded
from ptft.data.tar.index_file import write_index
from ptft.errors import DataError, SampleError

__all__ = ["PackedShard", "ShardPacker", "pack_picture"]

_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"BM": "bmp"}


@dataclass(frozen=True)
class PackedShard:
    """What became of a run of samples.

    Attributes:
        name: of the tar; none was written where ``samples`` is 0.
        samples: that it holds.
        resized: those of them whose picture was encoded anew.
        size: of the tar in bytes.
        skipped: name and reason of each sample that could not be read.
    """

    name: str
    samples: int
    resized: int
    size: int
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ShardPacker:
    """Packs runs of a set's samples, each into a tar of its own.

    Attributes:
        samples: the set.
        folder: where tars go.
        split: the first part of their names; the number of a tar is that of the run.
        run: samples of a full run.
        short_side: in pixels; larger pictures are reduced to it.
        quality: of the JPEGs that are written, 1 to 95.
    """

    samples: FieldSet
    folder: Path
    split: str
    run: int
    short_side: int
    quality: int

    def name(self, indices: range) -> str:
        """Of the tar of a run."""
        return f"{self.split}-{indices.start // self.run:06d}.tar"

    def read(self, indices: range) -> PackedShard:
        """Write the tar of a run and its index, atomically; the same samples give the same bytes.

        Raises:
            DataError: the tar cannot be written.
        """
        if torch.utils.data.get_worker_info() is not None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a shard takes long: end at once
        path = self.folder / self.name(indices)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.unlink(missing_ok=True)
            packed = self._write(indices, partial)
            if packed.samples:
                partial.replace(path)
                write_index(path)
            return packed
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
        finally:
            partial.unlink(missing_ok=True)

    def _write(self, indices: range, partial: Path) -> PackedShard:
        count = resized = 0
        skipped: list[tuple[str, str]] = []
        with partial.open("xb") as stream:  # not through a link that somebody put there
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for index in indices:
                    try:
                        files, anew = self._files(index)
                    except SampleError as error:
                        name = self.samples.name(index)
                        skipped.append((name, str(error).removeprefix(f"{name}: ")))
                        continue
                    for extension, data in files.items():
                        # the number of the sample where it came from: unique, and found again
                        member = tarfile.TarInfo(f"{index:09d}.{extension}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
                    count += 1
                    resized += anew
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
        return PackedShard(self.name(indices), count, resized, size, skipped)

    def _files(self, index: int) -> tuple[dict[str, bytes], bool]:
        """The files of a sample, its picture first, and whether that was encoded anew."""
        picture = self.samples[index].picture
        assert isinstance(picture, Encoded), "samples with fields have encoded pictures"
        extension, data = pack_picture(picture, self.short_side, self.quality)
        anew = data is not picture.data
        return {extension: data, **self.samples.files(index)}, anew


def pack_picture(picture: Encoded, short_side: int, quality: int) -> tuple[str, bytes]:
    """Extension and bytes of a picture whose shorter side is ``short_side`` pixels at most.

    One that is not larger is left as it is, byte for byte, if shards can hold its format (JPEG,
    PNG, WebP, BMP); all others become JPEGs, reduced by Pillow's bicubic filter, and as a new model
    reads them: upright, of 8 bits, without transparency. Every picture is decoded, so what comes
    out can be read.

    Raises:
        SampleError: it cannot be read.
    """
    pixels = picture.pixels()
    height, width = pixels.shape[:2]
    extension = _extension(picture.data)
    if min(height, width) <= short_side:
        if extension is not None:
            return extension, picture.data
        size = (width, height)
    else:
        scale = short_side / min(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(pixels)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return "jpg", stream.getvalue()


def _extension(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
