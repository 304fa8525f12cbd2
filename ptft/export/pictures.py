"""The card's pictures: the run's curves, and what the model finds nearest to a few queries.

Examples show samples of the data, and captions. They are published only where ptft drew the data
itself, or where the user asks for them: what lies on a disk may be anybody's.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

from PIL import Image

from ptft.artifact import FolderFiles, RunFiles
from ptft.errors import ArtifactError
from ptft.files.own import copy_plain
from ptft.model_source import LocalSource, ModelFolder, finished_run
from ptft.printable import printable
from ptft.recipe import Recipe, ScenesData
from ptft.report.neighbours.record import Answer, Found, Neighbours, read_neighbours

__all__ = ["write_pictures"]

_COLUMNS = 6  # the query and the five nearest
_ROWS = 8
_RIGHT, _WRONG = "#2e7d32", "#c62828"  # frames: found rightly, or not
_DPI = 72


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
    entries: Sequence[Answer | Found] = (answer, *answer.found)
    for entry in entries:
        picture = None if entry.picture is None else known.pictures[entry.picture]
        text = entry.text if picture is None else picture.says
        right = entry.right if isinstance(entry, Found) else None
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
