"""Small shards and parquet files, and their pictures."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image


def picture(number: int, form: str = "png") -> bytes:
    """An encoded picture of 8 x 6 pixels in one grey."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (number, number, number)).save(stream, form)
    return stream.getvalue()


def write_pictures(folder: Path) -> list[str]:
    """Six pictures in a folder, two of them twice; their names, as a table may spell them."""
    (folder / "in").mkdir(parents=True)
    names = ["a.png", "in/b.png", "./c.png", "ü.png", "d.png", "left.png"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number % 4))
    return names


def write_tar(path: Path, files: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_pairs(path: Path, count: int, first: int = 0) -> Path:
    files: dict[str, bytes] = {}
    for number in range(first, first + count):
        files[f"{number:04d}.png"] = picture(number)
        files[f"{number:04d}.txt"] = f"grey {number}".encode()
    return write_tar(path, files)


def grey_rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "image": {"bytes": picture(number % 256), "path": f"{number}.png"},
            "text": f"grey {number}",
            "tags": [f"t{number}", "grey"],
            "kind": number % 3,
        }
        for number in range(first, first + count)
    ]


def write_parquet(path: Path, count: int, first: int = 0, group: int = 10) -> Path:
    table = pyarrow.Table.from_pylist(grey_rows(count, first))
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path
