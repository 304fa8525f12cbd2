"""A recipe without the machine that it ran on: as it is published, and as a stranger's is taken.

Folders are the machine's, and often name its user: what is published keeps the last part of a path
that leads from the root, a home or a drive, and no credential. Relative paths and addresses stay.

A run or model folder may be anybody's. What its recipe says of the machine (the ``run`` section:
folders, processes, trackers; where fetched shards are kept and how many) was about the machine
that wrote it: here it has its defaults. None of it is in a recipe's digest.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ptft.errors import RecipeError
from ptft.printable import hide_credentials
from ptft.recipe.data import BoxesData, FolderData, ShardsData, TableData
from ptft.recipe.load import apply_override, parse_comparison, parse_recipe, read_values
from ptft.recipe.paths import is_hub_id
from ptft.recipe.schema import Recipe

__all__ = [
    "LOCAL",
    "drop_local",
    "load_foreign",
    "public_names",
    "public_place",
    "public_text",
    "published_recipe",
    "published_values",
]

_WORDS = frozenset({"captions", "classes", "templates", "metric", "label", "name"})
"""Keys of texts and names: a list under them holds no path (a class may be ``/m/01g317``)."""

_LOCAL = re.compile(r"(?i)\{?(?:file:|[a-z]:[\\/]|[\\/~])")
_UP = re.compile(r"(?:^|[\\/{,])\.\.(?:[\\/]|$)|[{,][\\/~]")
_PLACE = re.compile(  # in a sentence
    r"(?i)(?<![\w.:/\\~-])(?:file:/+|~[\w.-]*[\\/]|[a-z]:[\\/]|\\\\|/)(?:[^\s'\"<>|:;,()\\/]*[\\/])+"
)


def public_place(text: str) -> str:
    """A path without the folders that lead to it; a relative one, a Hub id or an address as it is.

    Braces and globs stay: ``/data/{a,b}-*.tar`` gives ``{a,b}-*.tar``.
    """
    text = hide_credentials(text)
    if _LOCAL.match(text) is None and _UP.search(text) is None:
        return text
    last = re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    if any(last.count(one) != last.count(other) for one, other in ("{}", "[]")):
        last = re.sub(r"[{}\[\],]", "", last)  # cut in the middle of a pattern
    return last if last not in ("", ".", "..", "~", "file:") else "elsewhere"


def public_text(text: str) -> str:
    """A sentence (an error, a reason) with every such path in it cut to its last part."""
    return _PLACE.sub("", hide_credentials(text))


def published_values(values: Any, key: str = "") -> tuple[Any, list[str]]:
    """Plain values of a recipe as they may be shown to strangers, and the keys that changed.

    Args:
        key: of ``values`` in the recipe, dotted.
    """
    changed: list[str] = []

    def shown(value: Any, dotted: str) -> Any:
        last = dotted.rpartition(".")[2]
        if isinstance(value, dict):
            return {name: shown(one, f"{dotted}.{name}".strip(".")) for name, one in value.items()}
        if isinstance(value, list):
            if last in _WORDS:
                return value
            return [shown(one, f"{dotted}.{number}") for number, one in enumerate(value)]
        if not isinstance(value, str) or (last in _WORDS and last != "classes"):
            return value
        public = public_place(value)
        if public != value:
            changed.append(dotted)
        return public

    return shown(values, key), changed


def published_recipe(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe as it may be published, and the keys whose folders were left out.

    The same of the result is the result, so that whoever has the recipe of a run can tell what
    its published form is.
    """
    own = recipe.model_dump(mode="json", by_alias=True)
    mirrored, own["run"]["mirror"] = own["run"]["mirror"], None  # whoever runs it has another place
    values, changed = published_values(own)
    if mirrored is not None:
        changed.append("run.mirror")
    if not changed:
        return recipe, []
    if "compare" in values:
        return parse_comparison(values, "the published recipe"), changed
    return parse_recipe(values, "the published recipe"), changed


LOCAL = frozenset({"cache", "cache_gb"})
"""Keys of a data section that are about the machine, as the whole section ``run`` is."""


def load_foreign(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe that lies in a run or model folder.

    Args:
        path: of the file.
        overrides: ``dotted.key=value`` of whoever asks, who may say where things lie here.

    Raises:
        RecipeError: as of :func:`ptft.recipe.load_recipe`; or it is a pipe or a device.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise RecipeError(f"{path}: not a plain file")
    values, where = read_values(path)
    drop_local(values)
    for override in overrides:
        apply_override(values, override)
    return parse_recipe(values, where)


def drop_local(values: dict[str, Any]) -> None:
    """Leave out what is about a machine, in place; whatever is of another shape is left to the
    checks of a recipe."""
    values.pop("run", None)
    for section in _sections(values):
        for key in LOCAL & section.keys():
            del section[key]


def _sections(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every data section of a recipe's values."""
    holders = [values, *_mappings(values.get("evaluate"))]
    guard = values.get("guard")
    known = guard.get("known") if isinstance(guard, dict) else None
    found = _mappings(known)
    for stage in _mappings(values.get("stages")):
        holders += [stage, *_mappings([stage.get("evaluate")])]
    for holder in holders:
        found += _mappings([holder.get("data")])
    for section in found:
        yield section
        for part in _mappings(section.get("parts")):
            yield from _mappings([part.get("data")])


def _mappings(values: Any) -> list[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def public_names(section: ShardsData | FolderData | TableData | BoxesData) -> list[str]:
    """Of each place that samples are trained on, its name on the Hub, or that of the last part of
    its path: the folders before it are of a machine, and nobody else's business."""
    train = section.train
    places = [train] if isinstance(train, str) else list(train or [])
    return [name if is_hub_id(name) else public_place(Path(name).name) for name in places]
