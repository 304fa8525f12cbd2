"""What of its data an export reads, to choose ranges of 8 bits by, and what of it travels with a
model: a sketch of the embeddings (:mod:`ptft.sketch`), the run's curves, and what it finds nearest
to a few queries.

Examples show samples of the data, and captions. They are published only where ptft drew the data
itself, or where the user asks for them: what lies on a disk may be anybody's.
"""

import base64
import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from ptft.artifact import FolderFiles, RunFiles
from ptft.data import open_split
from ptft.data.sample import Part
from ptft.errors import ArtifactError, PtftError, SampleError
from ptft.evaluate.embed import embed_split, embed_texts
from ptft.files.own import copy_plain
from ptft.model import DualEncoder
from ptft.model_source import LocalSource, ModelFolder, finished_run
from ptft.printable import printable
from ptft.recipe import TOWERS_OF, Recipe, ScenesData
from ptft.recipe.data import DataSection, has_pictures
from ptft.report.neighbours.record import Answer, NearestFound, Neighbours, read_neighbours
from ptft.sketch import SMALLEST, Sketches, make_confidence, make_sketch
from ptft.speech import ProgressCallback

__all__ = ["SAMPLES", "calibration_pictures", "write_pictures", "write_sketch"]

SAMPLES = 512
"""Of training, and of the samples held out, at most."""

_BATCH = 32
_CALIBRATED = 128  # pictures

_COLUMNS = 6  # the query and the five nearest
_ROWS = 8
_RIGHT, _WRONG = "#2e7d32", "#c62828"  # frames: found rightly, or not
_DPI = 72


@dataclass(frozen=True)
class _Embedded:
    """Of N samples embeddings of their pictures and of their first captions, and what a head makes
    of them; with no row where there are none."""

    images_nd: NDArray[np.float32]
    texts_nd: NDArray[np.float32]
    classes_nc: NDArray[np.float32]


def calibration_pictures(model: DualEncoder, recipe: Recipe | None) -> NDArray[np.float32] | None:
    """Up to 128 of the training data, evenly spaced, without augmentation: float32 (N, 3, H, W) as
    the model takes them. None where there is no such data here."""
    preprocess = model.spec.preprocess
    found = []
    try:
        if recipe is None:
            return None
        samples = open_split(recipe.data, "train", seed=recipe.seed)
        for index in np.linspace(0, len(samples) - 1, min(_CALIBRATED, len(samples))).astype(int):
            with contextlib.suppress(SampleError):
                picture = samples[int(index)].decoded(preprocess.reading)
                found.append(preprocess.pixels(picture))
    except PtftError:
        return None
    return preprocess.normalise(np.stack(found)) if found else None


def write_sketch(
    model: DualEncoder,
    recipe: Recipe | None,
    path: Path,
    *,
    count: ProgressCallback | None = None,
) -> str | None:
    """Embed samples of the recipe's training and validation data, evenly spaced, and write their
    sketch; texts are the first caption of each.

    Args:
        model: on the CPU.
        recipe: None where none is recorded.
        path: of the file.
        count: told how many samples are done.

    Returns:
        Why there is none; None where it was written.
    """
    if recipe is None:
        return "no recipe is recorded"
    try:
        train, held = (
            _embed(model, recipe.data, split, recipe.seed, count) for split in ("train", "val")
        )
    except PtftError:  # its message may name folders of this machine
        return "the recipe has no validation data, or its data is not here"
    found = Sketches(
        image=make_sketch(train.images_nd, held.images_nd),
        text=make_sketch(train.texts_nd, held.texts_nd),
        confidence=make_confidence(train.classes_nc, held.classes_nc),
    )
    tensors = found.tensors()
    if not tensors:
        return f"training or validation data has fewer than {2 * SMALLEST} samples"
    save_file(tensors, path)
    return None


@torch.no_grad()
def _embed(
    model: DualEncoder,
    section: DataSection,
    split: Literal["train", "val"],
    seed: int,
    count: ProgressCallback | None,
) -> _Embedded:
    whole = open_split(section, split, seed=seed)
    most = min(SAMPLES, len(whole))
    last = most - 1 if whole.in_order else len(whole) - 1
    samples = Part(whole, np.linspace(0, last, most).astype(np.int64))
    pictures = has_pictures(section)
    embedded = embed_split(
        model,
        samples,
        batch=_BATCH,
        workers=0,  # a process would take longer to start than these take to be decoded
        what=f"sketch of {split}",
        progress=count,
        reads="image" if pictures else "text",
    )
    images_nd = embedded.inputs_nw if pictures else torch.empty(0, model.spec.embed_dim)
    texts = [own[0] for own in embedded.captions if own]
    texts_nd = embed_texts(model, texts, batch=_BATCH, progress=count)
    classes_nc = torch.empty(0, len(model.spec.classes))
    rows = {"image": images_nd, "text": texts_nd}
    read = [rows[tower] for tower in TOWERS_OF[model.spec.reads]]
    if model.head is not None and all(len(one) == len(embedded.captions) for one in read):
        logits_nc = model.class_logits(torch.cat(read, dim=1))
        each = model.spec.thresholds is not None
        classes_nc = logits_nc.sigmoid() if each else logits_nc.softmax(dim=1)
    if len(set(texts)) < 2 * SMALLEST:  # names of a few classes are no texts that anyone would send
        texts_nd = texts_nd[:0]
    return _Embedded(images_nd.numpy(), texts_nd.numpy(), classes_nc.numpy())


def write_pictures(
    source: LocalSource, folder: Path, recipe: Recipe | None, *, examples: bool
) -> None:
    """Put ``assets/`` into a model folder, as far as its source has what they are made of.

    The same source gives the same bytes.

    Args:
        source: a run with its final model, or a model folder, whose assets are copied; others have
            none.
        examples: also of data that ptft did not draw.
    """
    if isinstance(source, ModelFolder):
        for name in (FolderFiles.CURVES, FolderFiles.EXAMPLES):
            if (source.folder / name).is_file():
                _place(source.folder / name, folder / name)
        return
    run = finished_run(source)
    if run is None:
        return
    if (run / RunFiles.CURVES).is_file():
        _place(run / RunFiles.CURVES, folder / FolderFiles.CURVES)
    found = read_neighbours(run) if examples or _drawn_by_ptft(recipe) else None
    if found is not None and found.after:
        (folder / FolderFiles.EXAMPLES).parent.mkdir(exist_ok=True)
        _draw(found, folder / FolderFiles.EXAMPLES)


def _place(path: Path, target: Path) -> None:
    """A picture of somebody's folder, which is going to be published: no link leads elsewhere.

    Raises:
        ArtifactError: it is none.
    """
    target.parent.mkdir(exist_ok=True)
    try:
        copy_plain(path, target, begins=b"\x89PNG\r\n\x1a\n")
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}; allowed: a PNG, and no link") from None


def _drawn_by_ptft(recipe: Recipe | None) -> bool:
    if recipe is None:
        return False
    sections = [recipe.data, *(item.data for item in recipe.evaluate if item.data is not None)]
    return all(isinstance(section, ScenesData) for section in sections)


def _draw(known: Neighbours, path: Path) -> None:
    """A row a query: what was asked, then the nearest, framed by whether they are right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    answers = known.after[:_ROWS]
    figure = Figure(figsize=(1.6 * _COLUMNS, 1.75 * len(answers)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(answers), _COLUMNS, squeeze=False)
    for row, answer in zip(axes, answers, strict=True):
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
        for axis, (image, text, right) in zip(row, _cells(known, answer), strict=False):
            _fill(axis, image, text, right)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})


def _cells(known: Neighbours, answer: Answer) -> Iterator[tuple[str | None, str, bool | None]]:
    """(picture as a data URI or None, text, whether it is right) of the query and each found."""
    entries: Sequence[Answer | NearestFound] = (answer, *answer.found)
    for entry in entries:
        picture = None if entry.picture is None else known.pictures[entry.picture]
        text = entry.text if picture is None else picture.says
        right = entry.right if isinstance(entry, NearestFound) else None
        yield None if picture is None else picture.image, text or "", right


def _fill(axis: Any, image: str | None, text: str, right: bool | None) -> None:
    text = printable(shorten(text, 66, placeholder=" ..."))
    words = "\n".join(wrap(text, 22))
    # A dollar sign would begin a formula
    words = words.replace("$", r"\$")
    if image is None:
        axis.text(0.5, 0.5, words, fontsize=7, ha="center", va="center", transform=axis.transAxes)
    else:
        axis.imshow(Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))))
        axis.set_xlabel(words, fontsize=6)
    if right is not None:
        axis.set_frame_on(True)
        for spine in axis.spines.values():
            spine.set_color(_RIGHT if right else _WRONG)
            spine.set_linewidth(2.5)
