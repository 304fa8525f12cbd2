"""Pictures of a folder to an index, by a model folder on onnxruntime: no torch."""

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptft.artifact import PRECISIONS, FolderFiles, read_model_info, verify_files
from ptft.errors import ArtifactError, SampleError, UsageError, suggest
from ptft.files.bounds import read_bytes
from ptft.files.picture_names import PassedOver, is_hidden, is_picture
from ptft.index.files import IndexInfo, write_picture_index
from ptft.onnx.model import OnnxModel
from ptft.onnx.served import served_files
from ptft.preprocess import decode_image
from ptft.speech import ProgressCallback, tell

__all__ = ["index_pictures", "pictures_within"]

_MAX_FILE = 512 << 20  # bytes of a picture

_BATCH = 16
_QUALITY = 80  # of thumbnails


def _open(model: Path, precision: str, threads: int) -> OnnxModel:
    """A model folder whose files, those that are read, are the ones that it records."""
    info = read_model_info(model)
    read = served_files(info, [precision], where=str(model / FolderFiles.INFO))
    held = verify_files(model, {name: info.files[name] for name in read}, remember=True)
    towers = OnnxModel(model, info, precision, threads)
    held.check_unchanged()
    return towers


def pictures_within(folder: Path) -> list[Path]:
    """Files of a folder and of those within it that are pictures by their endings, in the order of
    their names; hidden ones and all others are passed over, counted and told."""
    found: list[Path] = []
    passed_over = PassedOver()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if is_hidden(name):
                passed_over.add("hidden or of the system", path.relative_to(folder).as_posix())
            elif name in files and is_picture(name):
                found.append(path)
            elif name in files:
                kind = f"files that are no pictures ({path.suffix.lower() or 'no ending'})"
                passed_over.add(kind, path.relative_to(folder).as_posix())
        folders[:] = [name for name in folders if not is_hidden(name)]
    for line in passed_over.lines():
        tell(f"{folder}: {line}")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def index_pictures(
    model: Path,
    pictures: Path,
    out: Path,
    *,
    precision: str = "fp32",
    thumbnails: int = 0,
    threads: int = 1,
    count: ProgressCallback | None = None,
) -> IndexInfo:
    """Embed every picture of a folder and of those within it, in the order of their names.

    A picture that cannot be read is named and left out. In an int8 model a picture's embedding
    depends on those of its batch, so each runs alone, as in the service.

    Args:
        model: a model folder; its files are verified.
        out: the index, a folder that is not there yet.
        precision: of the towers: fp32, fp16 or int8.
        thumbnails: pixels of their longer side; 0: none.
        threads: of onnxruntime.
        count: told how many pictures are done.

    Raises:
        UsageError: ``out`` is taken, or there is no picture.
        ArtifactError, DigestError: the model folder is none, or was changed.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision: {precision!r}; {suggest(precision, PRECISIONS)}")
    if out.exists():
        raise UsageError(f"{out} is there; allowed: a new folder")
    if not pictures.is_dir():
        raise UsageError(f"{pictures}: no such folder of pictures")
    towers = _open(model, precision, threads)
    info = towers.info
    paths = pictures_within(pictures)
    names: list[str] = []
    small: list[bytes] = []
    rows: list[NDArray[np.float32]] = []
    batch: list[NDArray[np.uint8]] = []  # pixels that have not run yet
    skipped = 0

    def run() -> None:
        pixels = towers.preprocess.normalise(np.stack(batch))
        rows.append(towers.encode_images(list(pixels)))
        batch.clear()

    for done, path in enumerate(paths, 1):
        name = path.relative_to(pictures).as_posix()
        try:
            name.encode()
            data = read_bytes(path, limit=_MAX_FILE, error=SampleError)
            image = decode_image(data, name=name, reading=towers.preprocess.reading)
        except (SampleError, UnicodeEncodeError) as error:
            skipped += 1
            tell(f"left out: {error}")
            continue
        names.append(name)
        batch.append(towers.preprocess.pixels(image))
        if thumbnails:
            small.append(_thumbnail(image, thumbnails))
        if len(batch) == (1 if precision == "int8" else _BATCH):
            run()
        if count is not None:
            count("pictures", done, len(paths))
    if batch:
        run()
    if not names:
        raise UsageError(f"{pictures}: no picture that can be read ({skipped} cannot)")
    embeddings = np.concatenate(rows)
    if not np.isfinite(embeddings).all():
        raise ArtifactError(f"{model}: an embedding is not finite")
    made = IndexInfo(info.name, info.digest, precision, len(names), info.embed_dim)
    return write_picture_index(out, made, embeddings, names, iter(small) if thumbnails else None)


def _thumbnail(image: Image.Image, side: int) -> bytes:
    small = image.copy()
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
