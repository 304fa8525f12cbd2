"""A recipe, and what is said of a run, without the machine that it ran on.

Folders are the machine's, and often name its user: what is published keeps the last part of a path
that leads from the root, a home or a drive, and no credential. Relative paths and addresses stay.
"""

import re
from typing import Any

from ptft.credentials import hide_credentials
from ptft.recipe.load import parse_recipe
from ptft.recipe.schema import Recipe

__all__ = ["public_place", "public_text", "published_recipe", "published_values"]

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
    return parse_recipe(values, "the published recipe"), changed
