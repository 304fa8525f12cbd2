"""Sets of any size for ``scale``: folders of links to one set of some thousand samples."""

import csv
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["Sets"]

CLASSES = 100


def _jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    colour = (number % 256, number // 256 % 256, 128)
    Image.new("RGB", (16, 16), colour).save(stream, "JPEG")
    return stream.getvalue()


class Sets:
    """Sets of any size, of links to one of ``base`` samples of each kind."""

    def __init__(self, home: Path, base: int) -> None:
        self.home, self.base = home, base

    def make(self, kind: str, count: int) -> Path:
        folder = self.home / f"{kind}_{count}"
        folder.mkdir()
        pieces = [self.base] * (count // self.base)
        if count % self.base:
            pieces.append(count % self.base)
        getattr(self, f"_{kind}")(folder, pieces)
        return folder

    def _pictures(self, count: int) -> Path:
        place = self.home / f"pictures_{count}"
        if not place.is_dir():
            place.mkdir()
            for number in range(count):
                path = place / f"{number:06d}.jpg"
                path.write_bytes(_jpeg(number))
                os.truncate(path, 100_000 + number)  # behind the picture's end: nothing is stored
        return place

    def _folder(self, folder: Path, pieces: list[int]) -> None:
        for number, count in enumerate(pieces):
            (folder / f"class_{number:04d}").symlink_to(self._pictures(count))

    def _csv(self, folder: Path, pieces: list[int]) -> None:
        with (folder / "metadata.csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(("file_name", "text"))
            table.writerows(self._named(folder, pieces))

    def _jsonl(self, folder: Path, pieces: list[int]) -> None:
        with (folder / "metadata.jsonl").open("w") as stream:
            for name, text in self._named(folder, pieces):
                stream.write(json.dumps({"file_name": name, "text": text}) + "\n")

    def _named(self, folder: Path, pieces: list[int]) -> Iterator[tuple[str, str]]:
        """Pictures of a folder and what is said of them."""
        for number, count in enumerate(pieces):
            (folder / f"{number:04d}").symlink_to(self._outside(folder, count))
            for n in range(count):
                yield f"{number:04d}/{n:06d}.jpg", f"a picture, of the colour number {n}"

    def _outside(self, folder: Path, count: int) -> Path:
        """The pictures inside the folder itself, which its table may not lead out of."""
        place = folder / f".pictures_{count}"
        if not place.is_dir():
            place.mkdir()
            for path in self._pictures(count).iterdir():
                os.link(path, place / path.name)
        return place

    def _shards(self, folder: Path, pieces: list[int]) -> None:
        from ptft.data.tar.index_file import index_path, load_index, save_index, write_index

        rng = np.random.default_rng(0)
        for number, count in enumerate(pieces):
            base = self.home / f"base_{count}.tar"
            if not base.is_file():
                _write_tar(base, count)
                write_index(base)
            tar = folder / f"{number:05d}.tar"
            os.link(base, tar)
            index = load_index(index_path(base), tar)
            index.digests = rng.integers(1, 256, (count, 16), np.uint8)
            save_index(index, index_path(tar))

    def _table(self, folder: Path, pieces: list[int]) -> None:
        import pyarrow
        import pyarrow.parquet

        for number, count in enumerate(pieces):
            base = self.home / f"base_{count}.parquet"
            if not base.is_file():
                cells = [{"bytes": _jpeg(n), "path": None} for n in range(count)]
                columns = {
                    "image": cells,
                    "label": [f"class {n % CLASSES}" for n in range(count)],
                    "text": [f"a picture, of the colour number {n}" for n in range(count)],
                }
                rows = pyarrow.table(columns)
                pyarrow.parquet.write_table(rows, base, row_group_size=1000)
            os.link(base, folder / f"{number:05d}.parquet")


def _write_tar(path: Path, count: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            texts = {"txt": f"a picture, of the colour number {number}", "cls": number % CLASSES}
            files = {"jpg": _jpeg(number)} | {e: str(t).encode() for e, t in texts.items()}
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{number:06d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
