"""Embed every picture below a folder with the release's own model, and write an index of them.

The index is a folder that takes the place of the one before it as a whole: ``embeddings.npy``,
float32 (N, D), L2-normalised; ``names.json``, the N paths below the folder, sorted; ``index.json``,
which model made it, and the pictures that could not be read. Embeddings of pictures that have not
changed since (by size and time) are taken from the index before it, if the model is the same.

It runs inside the service's own image: python -c ... PICTURES INDEX BATCH.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from ptft.errors import PtftError, SampleError
from ptft.preprocess import decode_image
from serving.model import load_model
from serving.settings import read_settings

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def find(pictures):
    """Name below the folder -> what tells that a picture has changed."""
    found = {}
    for path in pictures.rglob("*"):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            stat = path.stat()
            found[path.relative_to(pictures).as_posix()] = [stat.st_size, stat.st_mtime_ns]
    if not found:
        sys.exit(f"{pictures}: no picture in it; allowed: {', '.join(SUFFIXES)}")
    return dict(sorted(found.items()))


def known(index, made_by, found):
    """Name -> embedding of those that an earlier index has, and that stand as they were."""
    try:
        before = json.loads((index / "index.json").read_text())
        names = json.loads((index / "names.json").read_text())
        rows = np.load(index / "embeddings.npy", allow_pickle=False)
    except (OSError, ValueError):
        return {}
    same = all(before.get(key) == value for key, value in made_by.items())
    if not same or len(rows) != len(names):
        return {}
    seen = before["seen"]
    return {
        name: row
        for name, row in zip(names, rows, strict=True)
        if name in found and seen.get(name) == found[name]
    }


def embed(model, settings, pictures, names):
    """Name -> embedding of those that can be read; name -> why of the others."""
    pixels, kept, failed = [], [], {}
    for name in names:
        try:
            data = (pictures / name).read_bytes()
            reading = model.preprocess.reading
            image = decode_image(data, name=name, max_pixels=settings.max_pixels, reading=reading)
            pixels.append(model.preprocess(image))
            kept.append(name)
        except (OSError, SampleError) as error:
            failed[name] = str(error)
    if not kept:
        return {}, failed
    return dict(zip(kept, model.encode_images(pixels), strict=True)), failed


def write(index, rows, about):
    """The whole index, in place of the one before it."""
    names = sorted(rows)
    new, old = index.with_name(f"{index.name}.new"), index.with_name(f"{index.name}.old")
    for folder in (new, old):
        remove(folder)
    new.mkdir(parents=True)
    np.save(new / "embeddings.npy", np.stack([rows[name] for name in names]).astype(np.float32))
    (new / "names.json").write_text(json.dumps(names))
    (new / "index.json").write_text(json.dumps(about))
    if index.exists():
        index.rename(old)
    new.rename(index)
    remove(old)


def remove(folder):
    """An index that is not needed any more."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


pictures, index, batch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
try:
    settings = read_settings(os.environ)
    model = load_model(settings)  # held to its digest, and to its golden embeddings
except PtftError as error:
    sys.exit(str(error))
info = model.info
made_by = {"model": info.digest, "precision": settings.precision, "dimensions": info.embed_dim}
found, failed = find(pictures), {}
rows = known(index, made_by, found)
todo, kept = [name for name in found if name not in rows], len(rows)
for start in range(0, len(todo), batch):
    more, wrong = embed(model, settings, pictures, todo[start : start + batch])
    rows.update(more)
    failed.update(wrong)
if not rows:
    sys.exit(
        f"{pictures}: none of {len(found)} pictures can be read: {next(iter(failed.values()))}"
    )
seen = {name: found[name] for name in rows}
write(index, rows, {**made_by, "count": len(rows), "failed": failed, "seen": seen})
sys.stdout.write(
    f"{index}: {len(rows)} pictures, {kept} of them as before, {len(failed)} could not be read; "
    f"model {info.digest}\n"
)
