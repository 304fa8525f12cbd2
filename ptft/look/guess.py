"""Guesses the data section that a path most probably is, and says in words what was guessed."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ptft.artifact import read_json
from ptft.errors import DataError, RecipeError
from ptft.files.bounds import Bounds
from ptft.files.picture_names import is_hidden
from ptft.look.first_row import first_row
from ptft.recipe.paths import expand_paths, is_url

__all__ = ["SPLITS", "Guess", "guess_section"]

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""A split and the names that its folder or its files usually have."""

_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}
_KINDS = {".tar": "shards", ".parquet": "table", ".csv": "table", ".jsonl": "table"}
_SAVED = ("dataset_dict.json", "state.json")  # by Hugging Face's datasets
_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_CLASS_FILES = ("classes.json", "classes.txt", "labels.txt")

Values = dict[str, Any]
"""Keys of a data section."""


class Guess(NamedTuple):
    """What a path probably is.

    Attributes:
        values: of the data section.
        said: what was guessed, a line each.
    """

    values: Values
    said: list[str]


def guess_section(target: str) -> Guess:
    """Guess the data section of a folder, of files (a glob, braces), or of a tar's address.

    Raises:
        RecipeError: nothing lies there, or files of several kinds.
        DataError: the folder holds nothing that is read as data.
    """
    if is_url(target):
        return Guess({"kind": "shards", "train": target}, ["an address: shards, as train"])
    paths = expand_paths(target, "TARGET")
    folders = [path for path in paths if path.is_dir()]
    if len(paths) == 1 and folders:
        guess = _of_folder(paths[0])
    elif folders:
        raise RecipeError(f"TARGET: {target!r}: {len(paths)} folders and files; allowed: 1 folder")
    elif len(paths) == 1 and paths[0].name.lower() in _TABLES:
        said = [f"{paths[0].name} names the pictures of its folder"]
        guess = Guess({"kind": "folder", "train": str(paths[0].parent)}, said)
    else:
        guess = _of_files(paths, target)
    return _with_columns(guess)


def _of_folder(folder: Path) -> Guess:
    entries = sorted((one for one in folder.iterdir() if not is_hidden(one.name)), key=str)
    names = {one.name.lower() for one in entries if one.is_file()}
    if names & set(_SAVED):
        return _of_saved(folder)
    table = next((name for name in _TABLES if name in names), None)
    if table is not None:
        said = [f"{table} names the pictures of the folder; all of them are train"]
        return Guess({"kind": "folder", "train": str(folder)}, said)
    inside = [one for one in entries if one.is_dir()]
    splits = [one for one in inside if one.name.lower() in _SPLIT_OF]
    if splits and (len(splits) == len(inside) or len({_split_of(one) for one in splits}) > 1):
        return _of_splits(splits, [one for one in inside if one not in splits])
    files = _files_in(entries)
    if not files and any(one.name == "data" for one in inside):  # as repositories of the Hub are
        files = _files_in(sorted((folder / "data").iterdir()))
    if files and (not inside or files[0].suffix.lower() not in (".csv", ".jsonl")):
        return _of_files(files, str(folder))
    if not inside:
        there = ", ".join(one.name for one in entries[:3]) or "nothing"
        raise DataError(
            f"{folder}: nothing that is read as data; there is: {there}"
            f"{', ...' if len(entries) > 3 else ''}; allowed: one folder a class, pictures beside "
            f"one of {', '.join(_TABLES)}, tars, parquet, CSV or JSON lines files, or folders "
            "train, val, test of these"
        )
    deeper = [one for one in inside if _tables_or_tars(one)]
    if deeper:
        raise RecipeError(
            f"TARGET: {str(folder)!r}: sets lie in its folders: "
            f"{', '.join(one.name for one in deeper[:6])}{', ...' if len(deeper) > 6 else ''}; "
            f"name one: {deeper[0]}"
        )
    said = ["one folder a class; all of them are train"]
    if splits:
        said.append(
            f"{splits[0].name} is taken for a class: it is the one folder of a split's name"
        )
    return Guess({"kind": "folder", "train": str(folder)}, said)


def _of_saved(folder: Path) -> Guess:
    """A dataset, or several by the names of their splits, as ``datasets`` saves them."""
    path = folder / _SAVED[0]
    names = ["train"]
    if path.is_file():
        said = Bounds(read_json(path), str(path), DataError)
        said.texts("splits", 1000, 500)
        names = said.values.get("splits", [])
    found = {_SPLIT_OF[name] for name in names if name in _SPLIT_OF}
    if not found:
        raise DataError(
            f"{path}: splits {', '.join(names) or 'none'}; allowed: one of {', '.join(_SPLIT_OF)}"
        )
    splits = [split for split in SPLITS if split in found]
    told = [f"saved by datasets: {', '.join(splits)}"]
    return Guess({"kind": "table", **{split: str(folder) for split in splits}}, told)


def _tables_or_tars(folder: Path) -> bool:
    files = _files_in(sorted(folder.iterdir()))
    return bool(files) and files[0].suffix.lower() in (".tar", ".parquet")


def _split_of(path: Path) -> str:
    return _SPLIT_OF[path.name.lower()]


def _of_splits(splits: Sequence[Path], others: Sequence[Path]) -> Guess:
    """Sub-folders that are named after splits."""
    found: dict[str, Path] = {}
    for folder in splits:
        split = _split_of(folder)
        if split in found:
            raise RecipeError(
                f"{folder.parent}: {found[split].name} and {folder.name} are both {split}; "
                "allowed: one folder a split, or a recipe"
            )
        found[split] = folder
    said = [f"its folders are splits: {', '.join(one.name for one in found.values())}"]
    if others:
        said.append(f"not looked at: {', '.join(one.name for one in others)}")
    values: Values = {}
    for split in sorted(found, key=list(SPLITS).index):
        files = _files_in(sorted(found[split].iterdir()))
        classes = any(one.is_dir() and not is_hidden(one.name) for one in found[split].iterdir())
        plain = files and files[0].suffix.lower() in (".csv", ".jsonl") and classes
        own: Values = {"kind": "folder", "train": str(found[split])}
        if files and not plain and not _has_table(found[split]):
            own = _of_kind(files, str(found[split]))
        if values and own["kind"] != values["kind"]:
            raise RecipeError(
                f"{found[split]}: {own['kind']}, and {values['kind']} in another split; allowed: "
                "one kind, or a recipe"
            )
        values |= {key: value for key, value in own.items() if key != "train"}
        values[split] = own["train"]
    return Guess(values, said)


def _has_table(folder: Path) -> bool:
    return any(one.name.lower() in _TABLES for one in folder.iterdir())


def _files_in(entries: Iterable[Path]) -> list[Path]:
    """Files of the first kind that there is any of."""
    files = [one for one in entries if one.is_file() and not is_hidden(one.name)]
    for ending in _KINDS:
        found = [one for one in files if one.suffix.lower() == ending]
        if found:
            return found
    return []


def _of_files(paths: Sequence[Path], target: str) -> Guess:
    """Files of one kind, parted by their names where these name splits."""
    parts: dict[str, list[Path]] = {}
    for path in paths:
        words = re.split(r"[^a-z]+", path.name.lower())
        split = next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), "")
        parts.setdefault(split, []).append(path)
    unnamed = parts.pop("", [])
    if not parts:
        return Guess(_of_kind(unnamed, target), ["no file is named after a split; all are train"])
    said = [f"by the names of the files: {', '.join(sorted(parts, key=list(SPLITS).index))}"]
    if unnamed:
        said.append(f"not looked at, since no split is named: {unnamed[0].name}, ...")
    values: Values = {}
    for split in sorted(parts, key=list(SPLITS).index):
        own = _of_kind(parts[split], target)
        values |= {key: value for key, value in own.items() if key != "train"}
        values[split] = own["train"]
    return Guess(values, said)


def _of_kind(paths: Sequence[Path], target: str) -> Values:
    """Files of one kind as ``train`` of a section.

    Raises:
        RecipeError: they are of several kinds, or of none that is read.
    """
    endings = sorted({path.suffix.lower() for path in paths})
    unread = [path for path in paths if path.suffix.lower() not in _KINDS]
    if unread or len(endings) > 1:
        what = unread[0] if unread else paths[0]
        raise RecipeError(
            f"TARGET: {target!r}: {what.name}"
            + ("" if unread else f" and files of {', '.join(endings[1:])}")
            + f"; allowed: a recipe, a folder, or files of one of {', '.join(_KINDS)}"
        )
    values: Values = {"kind": _KINDS[endings[0]], "train": _pattern(paths)}
    if endings[0] in (".csv", ".jsonl"):
        values["image"] = None
    return values


def _pattern(paths: Sequence[Path]) -> str | list[str]:
    """A glob that means these files and no others, where one is found; else all their names."""
    if len(paths) == 1:
        return str(paths[0])
    names = [path.name for path in paths]
    start = 0
    while len({name[: start + 1] for name in names}) == 1:
        start += 1
    stem = names[0][:start].rstrip("0123456789")
    pattern = str(paths[0].parent / f"{stem}*{paths[0].suffix}")
    try:
        same = expand_paths(pattern, "") == list(paths)
    except RecipeError:
        same = False
    return pattern if same else [str(path) for path in paths]


def _with_columns(guess: Guess) -> Guess:
    """The same with captions and label, by what the first row holds."""
    values, said = dict(guess.values), list(guess.said)
    split = next(name for name in SPLITS if values.get(name))
    first = first_row(values, split)
    if first is None:
        return guess
    found = first.columns
    if values["kind"] == "table" and "image" not in values and found.picture != "image":
        values["image"] = found.picture
        said.append(f"pictures: column {found.picture!r}" if found.picture else "no pictures")
    if found.text is not None and found.text != first.default:
        values["captions"] = [f"{{{found.text}}}"]
    if found.text is not None:
        said.append(f"captions: {found.text!r}")
    if found.label is not None and found.label != first.own_label:
        values["label"] = found.label
    if found.label is not None:
        said.append(f"classes: {found.label!r}")
    if first.numbered:
        folder = expand_paths(values[split], split)[0].parent
        names = next((folder / one for one in _CLASS_FILES if (folder / one).is_file()), None)
        if names is not None:
            values["classes"] = str(names)
            said.append(f"names of the classes: {names.name}")
    return Guess(values, said)
