"""Pascal VOC: an XML file a picture (Everingham et al. 2010).

A split is a folder of XML files, or a list of names as in ``ImageSets/Main/train.txt``, whose
``Annotations`` and ``JPEGImages`` lie in a folder above it.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ptft.data.boxes.box import BoxTally
from ptft.data.boxes.entry import (
    Annotated,
    Entry,
    MarkedThing,
    check_absolute,
    check_class,
    read_words,
)
from ptft.errors import DataError
from ptft.files.bounds import check_inside, read_bytes, shown
from ptft.files.picture_names import IMAGE_EXTENSIONS

__all__ = ["is_voc", "read_voc"]

_MAX_XML = 4 << 20  # bytes of one picture's file; as elements they take 40 times that
_MAX_LIST = 256 << 20
_ANNOTATIONS, _PICTURES = "Annotations", "JPEGImages"


def is_voc(path: Path) -> bool:
    """Whether a split is a list or a folder of Pascal VOC's."""
    if path.is_dir():
        return next(path.glob("*.xml"), None) is not None
    return path.suffix.lower() == ".txt" and _root(path) is not None


def read_voc(path: Path, images: Path | None, *, origin: int = 0) -> Annotated:
    """Read a split.

    Args:
        images: the folder of the pictures; None: ``JPEGImages`` beside the annotations, or where
            they are.
        origin: number of the first pixel: 0, as tools write it today, or 1, as VOC's own files.

    Raises:
        DataError: a file is absent or damaged.
    """
    if path.is_dir():
        files, root = sorted(path.glob("*.xml")), path.parent
    else:
        found = _root(path)
        if found is None:
            raise DataError(f"{path}: no folder above it has {_ANNOTATIONS}; allowed: VOC's layout")
        root = found
        files = [root / _ANNOTATIONS / f"{name}.xml" for name in _names(path)]
    folder = images or (root / _PICTURES if (root / _PICTURES).is_dir() else root)
    tally = BoxTally()
    entries = tuple(_entry(file, folder, tally, origin) for file in files)
    if not entries:
        raise DataError(f"{path}: it names no picture")
    check_absolute(entries, str(path), "Pascal VOC")
    return Annotated(entries, None, tally, inside=folder)


def _root(path: Path) -> Path | None:
    for folder in path.absolute().parents[:4]:
        if (folder / _ANNOTATIONS).is_dir():
            return folder
    return None


def _names(path: Path) -> list[str]:
    """The first word of each line; VOC's lists of one class have a sign behind it."""
    text = read_words(path, limit=_MAX_LIST)
    rows = [line.split() for line in text.splitlines() if line.strip()]
    names = [row[0] for row in rows if len(row) == 1 or row[1] != "-1"]
    for name in names:
        check_inside(name, f"{path}:", error=DataError)
        if "/" in name or "\\" in name:
            raise DataError(f"{path}: {shown(name)}: allowed: names of annotations, no paths")
    twice = len(names) - len(set(names))
    if twice:
        raise DataError(f"{path}: {twice} names come twice")
    return names


def _entry(file: Path, folder: Path, tally: BoxTally, origin: int) -> Entry:
    data = read_bytes(file, limit=_MAX_XML, error=DataError)
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise DataError(f"{file}: it declares entities; allowed: plain elements")
    if b"\0" in data:  # in units of two bytes, where a declaration would not be seen
        raise DataError(f"{file}: it has NUL bytes, as UTF-16 does; allowed: XML in UTF-8")
    try:
        root = ElementTree.fromstring(data)  # noqa: S314 - without entities, and bounded
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file}: not XML: {error}") from None
    name = (_text(root, "filename") or file.stem).replace("\\", "/").rstrip("/").rpartition("/")[2]
    check_inside(name, f"{file}: filename", error=DataError)
    things = []
    for number, element in enumerate(root.iter("object")):
        thing = _thing(element, f"{file}: object {number}", tally, origin)
        if thing is not None:
            things.append(thing)
    size = root.find("size")
    width, height = (_whole(size, "width"), _whole(size, "height")) if size is not None else (0, 0)
    return Entry(
        name=name,
        path=_picture(folder, name, file),
        things=tuple(things),
        size=(width, height) if width > 0 and height > 0 else None,
    )


def _thing(
    element: ElementTree.Element, where: str, tally: BoxTally, origin: int
) -> MarkedThing | None:
    name = check_class(_text(element, "name"), f"{where}: name")
    box = element.find("bndbox")
    if box is None:
        tally.add("without bndbox: left out", where)
        return None
    corners = [_number(box, key, where) for key in ("xmin", "ymin", "xmax", "ymax")]
    left, top = corners[0] - origin, corners[1] - origin
    return MarkedThing(
        (left, top, corners[2], corners[3]),
        name,
        difficult=_text(element, "difficult") in ("1", "true", "True"),
    )


def _text(element: ElementTree.Element, key: str) -> str:
    found = element.find(key)
    return (found.text or "").strip() if found is not None else ""


def _number(element: ElementTree.Element, key: str, where: str) -> float:
    text = _text(element, key)
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: {key}: {shown(text)}; allowed: a number") from None


def _whole(element: ElementTree.Element, key: str) -> int:
    text = _text(element, key)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _picture(folder: Path, name: str, file: Path) -> Path:
    """The picture that the annotation names, or one of its own name; the former where neither is.

    Raises:
        DataError: there are both, as where an annotation was copied.
    """
    named = folder / name
    if named.stem == file.stem and named.is_file():
        return named
    own = (
        folder / f"{file.stem}.{ending}"
        for known in IMAGE_EXTENSIONS
        for ending in (known, known.upper())
    )
    found = next((candidate for candidate in own if candidate.is_file()), named)
    if found is not named and named.is_file():
        raise DataError(
            f"{file}: filename {shown(name)}, and {found.name} is there as well; allowed: one of "
            "them, which the boxes are of"
        )
    return found
