"""Pictures with boxes in the files of annotation tools: Pascal VOC, COCO, YOLO."""

from collections.abc import Sequence
from pathlib import Path

from ptft.data.boxes.box import Boxes, BoxTally, count_boxes
from ptft.data.boxes.coco import read_coco
from ptft.data.boxes.entry import Annotated, number_things
from ptft.data.boxes.voc import is_voc, read_voc
from ptft.data.boxes.yolo import read_yolo
from ptft.data.fields.classes import load_classes
from ptft.data.hashing import digest_of
from ptft.data.listing import read_picture
from ptft.data.reading.decode import Encoded
from ptft.data.sample import Sample, SampleSet
from ptft.errors import DataError
from ptft.recipe.data import BoxesData

__all__ = ["MarkedPictures", "read_annotations"]


class MarkedPictures(SampleSet):
    """Pictures and their boxes, in the order of the annotations.

    Args:
        section: format, pictures and classes.
        path: of the split's annotations.
        split: its name, which ``data.yaml`` has as a key.
        key: where the path stands in the recipe.
        classes: names to number by where the section has none and the files do not say; those of
            the training set.

    Raises:
        DataError: the annotations cannot be read, or a class is unknown.
    """

    def __init__(
        self,
        section: BoxesData,
        path: Path,
        split: str,
        key: str,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.section = section
        given = load_classes(section.classes) if section.classes is not None else None
        annotated = read_annotations(section, path, split, given)
        self.box_classes = given or (list(classes) if classes else annotated.names)
        tally = annotated.tally
        _check_once(annotated, path, tally)
        self._names = [entry.name for entry in annotated.entries]
        self._paths = [entry.path for entry in annotated.entries]
        self._inside = annotated.inside
        self._boxes = [
            number_things(entry, self.box_classes, tally, where=key) for entry in annotated.entries
        ]
        self._said = [*tally.notes(), count_boxes(self._boxes, self.box_classes)]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        name, path = self._names[index], self._paths[index]
        data = read_picture(name, path, self.section.max_pixels, self._inside)
        picture = Encoded(data, name, self.section.max_pixels)
        return Sample(name, picture, (), None, self._boxes[index])

    def name(self, index: int) -> str:
        return self._names[index]

    def captions(self, index: int) -> tuple[str, ...]:
        return ()

    def describe(self, index: int) -> tuple[tuple[str, ...], int | None]:
        return (), None

    def boxes(self, index: int) -> Boxes:
        """What is marked in a picture, without reading it."""
        return self._boxes[index]

    def notes(self, readers: int) -> list[str]:
        return list(self._said)

    def fingerprint(self) -> str | None:
        digests = [
            digest_of(name, boxes.corners.tobytes(), boxes.labels.tobytes(), boxes.crowd.tobytes())
            for name, boxes in zip(self._names, self._boxes, strict=True)
        ]
        sizes = [path.stat().st_size if path.is_file() else -1 for path in self._paths]
        return digest_of(self.box_classes, *digests, *sizes)


def _check_once(annotated: Annotated, path: Path, tally: BoxTally) -> None:
    """Refuse a file in which a picture has two annotations, each of which lacks the other's boxes;
    YOLO's lists repeat a picture to show it more often.

    Raises:
        DataError: a picture comes twice.
    """
    seen: set[Path] = set()
    for entry in annotated.entries:
        if entry.path in seen:
            if not entry.relative:
                raise DataError(
                    f"{path}: {entry.name}: a second annotation of this picture; allowed: one"
                )
            tally.add("of pictures that are listed again: kept", entry.name, len(entry.things))
        seen.add(entry.path)


def read_annotations(
    section: BoxesData, path: Path, split: str, classes: Sequence[str] | None
) -> Annotated:
    """Read a split's annotations in the section's format, or in the one that they look like.

    Raises:
        DataError: they are of none, or damaged.
    """
    images = Path(section.images).expanduser() if section.images is not None else None
    if images is not None and not images.is_dir():
        raise DataError(f"data.images: {section.images}: not a folder")
    form = section.format if section.format != "auto" else _format_of(path)
    if form == "coco":
        return read_coco(path, images)
    if form == "voc":
        return read_voc(path, images, origin=section.voc_origin)
    return read_yolo(path, images, split, classes)


def _format_of(path: Path) -> str:
    ending = path.suffix.lower()
    if ending == ".json":
        return "coco"
    if is_voc(path):
        return "voc"
    if path.is_dir() or ending in (".yaml", ".yml", ".txt"):
        return "yolo"
    raise DataError(
        f"{path}: not annotations that are known by their looks; allowed: COCO's .json, a folder "
        "of VOC's .xml or a list of its names, YOLO's data.yaml or folder; or data.format"
    )
