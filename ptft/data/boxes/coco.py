"""COCO's JSON: one file a split (Lin et al. 2014), and LVIS's, which is its superset (Gupta et al.
2019)."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ptft.data.boxes.box import BoxTally
from ptft.data.boxes.entry import Annotated, Entry, MarkedThing, check_absolute
from ptft.errors import DataError
from ptft.files.bounds import parse_json, read_bytes, shown

__all__ = ["read_coco"]

_MAX_JSON = 4 << 30


def read_coco(path: Path, images: Path | None) -> Annotated:
    """Read a split.

    Args:
        images: the folder that ``file_name`` counts from; None: the JSON's own, or ``images``
            beside it or beside its folder, whichever has the first picture.

    Raises:
        DataError: the file is damaged, or what it says does not fit together.
    """
    values = parse_json(read_bytes(path, limit=_MAX_JSON, error=DataError), path, error=DataError)
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
    orphans = set(things) - set(known)
    for owner in sorted(orphans, key=str):
        tally.add("of a picture that is not listed: left out", f"{owner}", len(things[owner]))
    folder = images or _folder(path, pictures)
    entries = tuple(
        _entry(picture, folder, tuple(things.get(key, ())), categories, path)
        for picture, key in zip(pictures, known, strict=True)
    )
    if not entries:
        raise DataError(f"{path}: it lists no picture")
    check_absolute(entries, str(path), "COCO")
    return Annotated(entries, tuple(categories.values()), tally)


def _categories(rows: Sequence[Any], path: Path) -> dict[Any, str]:
    """Names by id, in order of the ids, which may have gaps."""
    named: dict[Any, str] = {}
    for number, row in enumerate(rows):
        where = f"{path}: categories.{number}"
        key = _key(row, "id", where)
        name = row.get("name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}.name: {shown(name)}; allowed: a name")
        if key in named:
            raise DataError(f"{where}.id: {shown(key)} comes twice")
        named[key] = name.strip()
    if not named:
        raise DataError(f"{path}: categories: it is empty")
    if len(set(named.values())) != len(named):
        twice = sorted(n for n in named.values() if list(named.values()).count(n) > 1)
        raise DataError(f"{path}: categories: {twice[0]!r} comes twice")
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
    x, y, width, height = map(float, box)
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
        asked = tuple(categories[key] for key in negative if key in categories)
    width, height = picture.get("width"), picture.get("height")
    sized = all(isinstance(n, int) and n > 0 for n in (width, height))
    return Entry(name, folder / name, things, size=(width, height) if sized else None, asked=asked)


def _file_name(picture: Any, path: Path) -> str:
    name = picture.get("file_name")
    if name is None and isinstance(picture.get("coco_url"), str):  # LVIS has nothing else
        name = "/".join(str(picture["coco_url"]).split("/")[-2:])
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: images: file_name: {shown(name)}; allowed: a path")
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or "\0" in name:
        raise DataError(f"{path}: images: file_name: {shown(name)}; allowed: a path inside")
    return str(parts)


def _folder(path: Path, pictures: Sequence[Any]) -> Path:
    """Where the first picture lies."""
    around = (
        path.parent,
        path.parent / "images",
        path.parent.parent / "images",
        path.parent.parent,
    )
    split = path.stem.removeprefix("instances_")
    candidates = (*around, *(folder / split for folder in around))
    if pictures:
        name = _file_name(pictures[0], path)
        for folder in candidates:
            if (folder / name).is_file():
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
