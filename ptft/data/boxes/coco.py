"""COCO's JSON: one file a split (Lin et al. 2014), and LVIS's, which is its superset (Gupta et al.
2019)."""

import codecs
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ptft.data.boxes.box import BoxTally
from ptft.data.boxes.entry import (
    Annotated,
    Entry,
    MarkedThing,
    as_float,
    check_absolute,
    check_class,
)
from ptft.errors import DataError
from ptft.files.bounds import check_inside, parse_json, read_bytes, shown

__all__ = ["read_coco"]

_MAX_JSON = 4 << 30  # bytes; that of LVIS has 1.1 GB
_TRIED = 8  # pictures that are looked for, to know their folder
_MAX_SIDE = 1_000_000_000  # pixels of a side that is a size
_FEW, _BYTES_EACH = 1 << 16, 16  # lists and objects of any file; bytes a further one takes at least


def read_coco(path: Path, images: Path | None) -> Annotated:
    """Read a split.

    Args:
        images: the folder that ``file_name`` counts from; None: the JSON's own, or ``images``
            beside it or beside its folder, whichever has one of the first pictures.

    Raises:
        DataError: the file is damaged, or what it says does not fit together.
    """
    data = read_bytes(path, limit=_MAX_JSON, error=DataError)
    data = data.removeprefix(codecs.BOM_UTF8)  # as programs on Windows write it
    if (count := data.count(b"[") + data.count(b"{")) > _FEW + len(data) // _BYTES_EACH:
        raise DataError(
            f"{path}: {count:,} lists and objects in {len(data):,} bytes; allowed: {_FEW:,}, and "
            f"one for every {_BYTES_EACH} bytes"
        )
    values = parse_json(data, path, most=None, once=True, error=DataError)
    del data
    if not isinstance(values, dict):
        raise DataError(f"{path}: {shown(values)}; allowed: COCO's object")
    categories = _categories(_list(values, "categories", path), path)
    tally = BoxTally()
    things: dict[Any, list[MarkedThing]] = {}
    pictures = _list(values, "images", path)
    known = [_key(picture, "id", f"{path}: images") for picture in pictures]
    if len(set(known)) != len(known):
        raise DataError(f"{path}: images: an id comes twice; allowed: one a picture")
    for number, row in enumerate(_list(values, "annotations", path)):
        where = f"{path}: annotations.{number}"
        owner = _key(row, "image_id", where)
        thing = _thing(row, categories, where, tally)
        if thing is not None:
            things.setdefault(owner, []).append(thing)
    spelled = {str(key): key for key in known}
    for owner in sorted(set(things) - set(known), key=str):
        if (own := spelled.get(str(owner))) is not None:
            raise DataError(
                f"{path}: annotations: image_id {shown(owner)}, which is {shown(own)} in images; "
                "allowed: ids written alike"
            )
        tally.add("of a picture that is not listed: left out", shown(owner), len(things[owner]))
    folder = images or _folder(path, pictures)
    entries = tuple(
        _entry(picture, folder, tuple(things.get(key, ())), categories, path)
        for picture, key in zip(pictures, known, strict=True)
    )
    if not entries:
        raise DataError(f"{path}: it lists no picture")
    check_absolute(entries, str(path), "COCO")
    return Annotated(entries, tuple(categories.values()), tally, inside=folder)


def _categories(rows: Sequence[Any], path: Path) -> dict[Any, str]:
    """Names by id, in order of the ids, which may have gaps."""
    named: dict[Any, str] = {}
    for number, row in enumerate(rows):
        where = f"{path}: categories.{number}"
        key = _key(row, "id", where)
        if key in named:
            raise DataError(f"{where}.id: {shown(key)} comes twice")
        named[key] = check_class(row.get("name"), f"{where}.name")
    if not named:
        raise DataError(f"{path}: categories: it is empty")
    if twice := sorted(name for name, count in Counter(named.values()).items() if count > 1):
        raise DataError(f"{path}: categories: {shown(twice[0])} comes twice")
    return dict(sorted(named.items(), key=lambda item: (str(type(item[0])), item[0])))


def _thing(
    row: Any, categories: Mapping[Any, str], where: str, tally: BoxTally
) -> MarkedThing | None:
    category = _key(row, "category_id", where)
    if category not in categories:
        raise DataError(
            f"{where}.category_id: {shown(category)}; allowed: an id of the {len(categories)} "
            "categories"
        )
    box = row.get("bbox")
    if box is None:
        tally.add("without bbox: left out", where)
        return None
    numbers = isinstance(box, list) and len(box) == 4
    if not numbers or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in box):
        raise DataError(f"{where}.bbox: {shown(box)}; allowed: x, y, width, height")
    x, y, width, height = map(as_float, box)
    return MarkedThing(
        (x, y, x + width, y + height), categories[category], crowd=bool(row.get("iscrowd", 0))
    )


def _entry(
    picture: Any,
    folder: Path,
    things: tuple[MarkedThing, ...],
    categories: Mapping[Any, str],
    path: Path,
) -> Entry:
    name = _file_name(picture, path)
    asked = None
    negative = picture.get("neg_category_ids")
    if isinstance(negative, list):  # LVIS: a picture is annotated for some classes only
        known = (key for key in negative if isinstance(key, int | str) and key in categories)
        asked = tuple(categories[key] for key in known)
    width, height = picture.get("width"), picture.get("height")
    sized = all(isinstance(n, int) and 0 < n < _MAX_SIDE for n in (width, height))
    return Entry(name, folder / name, things, size=(width, height) if sized else None, asked=asked)


def _file_name(picture: Any, path: Path) -> str:
    name = picture.get("file_name")
    if name is None and isinstance(picture.get("coco_url"), str):  # LVIS has nothing else
        name = "/".join(str(picture["coco_url"]).split("/")[-2:])
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: images: file_name: {shown(name)}; allowed: a path")
    check_inside(name, f"{path}: images: file_name:", error=DataError)
    return str(PurePosixPath(name.replace("\\", "/")))


def _folder(path: Path, pictures: Sequence[Any]) -> Path:
    """Where one of the first pictures lies."""
    around = (
        path.parent,
        path.parent / "images",
        path.parent.parent / "images",
        path.parent.parent,
    )
    split = path.stem.removeprefix("instances_")
    candidates = (*around, *(folder / split for folder in around))
    if pictures:
        names = [_file_name(picture, path) for picture in pictures[:_TRIED]]
        for folder in candidates:
            if any((folder / name).is_file() for name in names):
                return folder
    return path.parent


def _list(values: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    found = values.get(key)
    if not isinstance(found, list):
        raise DataError(f"{path}: {key}: {shown(found)}; allowed: a list")
    return found


def _key(row: Any, key: str, where: str) -> Any:
    if not isinstance(row, dict):
        raise DataError(f"{where}: {shown(row)}; allowed: an object")
    value = row.get(key)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise DataError(f"{where}.{key}: {shown(value)}; allowed: an id")
    return value
