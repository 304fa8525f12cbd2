"""Names that were hardly meant as they are read: spelt in two ways, or a word for nothing."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["alike", "is_word_for_nothing", "odd_names"]

_NOTHING = frozenset(
    ("nan", "none", "null", "nil", "na", "n/a", "n.a.", "<na>", "#n/a", "undefined", "-", "--", "?")
)
_NUMBER = re.compile(r"([+-]?)0*(\d+?)(\.0*)?")
_SHOWN = 3  # groups


def odd_names(names: Sequence[str]) -> list[str]:
    """What is worth a warning of the classes of a set, a line each."""
    lines = []
    if groups := alike(names):
        shown = "; ".join(", ".join(map(repr, group[:4])) for group in groups[:_SHOWN])
        more = f" (and {len(groups) - _SHOWN:,} more)" if len(groups) > _SHOWN else ""
        what = "case, spaces, marks or leading zeros"
        lines.append(f"classes that differ in {what} alone: {shown}{more}")
    if words := [name for name in names if is_word_for_nothing(name)]:
        shown = ", ".join(map(repr, words[:_SHOWN]))
        lines.append(f"a class is called {shown}: leave cells empty where there is no class")
    return lines


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names that people would read as one, group by group."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_read_by_people(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def is_word_for_nothing(text: str) -> bool:
    """Whether a text is how programs write that there is none."""
    return text.strip().casefold() in _NOTHING


def _read_by_people(name: str) -> str:
    """A name without what nobody sees: of numbers their value, of others letters and digits."""
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    if (number := _NUMBER.fullmatch(text)) is not None:
        return f"{number[1].replace('+', '') if number[2] != '0' else ''}{number[2]}"
    text = text.replace("\u200b", " ")  # a space, though of no width
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    words = re.split(r"[\s_-]+", text)
    return " ".join(filter(None, words)) or text
