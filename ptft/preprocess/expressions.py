"""What an expression that a ``tokenizer.json`` searches by may cost, told from how it is written.

The library's search goes back over every way in which repeats can share a text before it says that
nothing matches. A repeat of a repeat makes these exponentially many; several repeats one after
another, behind which something may fail, a power of the text's length. One such repeat is in most
tokenizers (``\\s+(?!\\S)``), and is a square at most, all starts together.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["endless", "is_square", "shortest"]

_MOST_WAYS = 16  # in which repeats of a bounded length may share a text, for each place of it
_WIDE = 256  # lengths of a repeat that count as without bound


_ATOM = re.compile(
    r"\\[pP]\{\^?\w+\}|\\x\{?[0-9a-fA-F]+\}?|\\u[0-9a-fA-F]{4}|\\.|"
    r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|[^\\\[]",
    re.DOTALL,
)
_GROUP = re.compile(r"\?(?:[:=!>|]|<[=!]|[imsx-]+:?)")
_REPEAT = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")


def endless(pattern: str) -> str | None:
    """Why an expression may take time without end: a repeat of what repeats or chooses, or a
    reference back. Without these, time grows as a power of the text and not as an exponential."""
    if re.search(r"\\[1-9]|\\[kg]<|\(\?[&(P]|\(\?<[^=!]", pattern):
        return "references and names"
    groups = [False]  # whether a group that is open holds a repeat or a choice
    last = False  # whether the atom before does
    place = 0
    while place < len(pattern):
        found = _ATOM.match(pattern, place)
        if found is None:
            return "a bracket that does not end"
        atom, place = found.group(), found.end()
        repeat = _REPEAT.match(pattern, place - 1) if atom in "*+?{" else None
        if atom == "(":
            groups.append(False)
            if mark := _GROUP.match(pattern, place):
                place = mark.end()
            last = False
        elif atom == ")":
            if len(groups) == 1:
                return "a bracket that does not begin"
            last = groups.pop()
            groups[-1] |= last
        elif repeat is not None:
            place = repeat.end()
            if last and repeat.group() != "?":
                return "a repeat of what repeats or chooses"
            groups[-1] = last = True
            if repeat.group() in "*+?" and pattern[place : place + 1] in ("?", "+"):
                place += 1  # it says how it repeats, not how often
        else:
            groups[-1] |= atom == "|"
            last = False
    if len(groups) > 1:
        return "a bracket that does not end"
    degree, ways = _taken_back(pattern)
    return "repeats after repeats" if degree > 1 or ways > _MOST_WAYS else None


def is_square(pattern: str) -> bool:
    """Whether the time of a search may grow as the square of a text's length."""
    return _taken_back(pattern)[0] > 0


@dataclass
class _Branch:
    """A part of an expression without a choice.

    Attributes:
        degree, ways: repeats without bound, and lengths of those with one, that are taken back
            where what follows them fails.
        open_degree, open_ways: the same, of those that nothing follows yet that could fail.
        others: degree and ways of the other branches of the group, open ones among them.
    """

    degree: int = 0
    ways: float = 1
    open_degree: int = 0
    open_ways: float = 1
    others: tuple[int, float, int, float] = (0, 1, 0, 1)

    def follow(self) -> None:
        """Something comes that may fail."""
        self.degree, self.ways = self.degree + self.open_degree, self.ways * self.open_ways
        self.open_degree, self.open_ways = 0, 1

    def repeat(self, least: int, most: float) -> None:
        """What came last has several lengths."""
        if most - least >= _WIDE:
            self.open_degree += 1
        else:
            self.open_ways *= most - least + 1

    def whole(self) -> tuple[int, float, int, float]:
        """The dearest of all branches."""
        mine = (self.degree, self.ways, self.open_degree, self.open_ways)
        return tuple(map(max, mine, self.others))  # type: ignore[return-value]


def _taken_back(pattern: str) -> tuple[int, float]:
    """Degree and ways of an expression whose brackets are balanced."""
    groups = [_Branch()]
    for piece, least, most in _pieces(pattern):
        if piece == "(":
            groups.append(_Branch())
        elif piece == "|":
            groups[-1] = _Branch(others=groups[-1].whole())
        else:
            inner = groups.pop().whole() if piece == ")" else (0, 1, 0, 1)
            branch = groups[-1]
            if least or inner[0] or inner[1] > 1:
                branch.follow()
            branch.degree, branch.ways = branch.degree + inner[0], branch.ways * inner[1]
            branch.open_degree += inner[2]
            branch.open_ways *= inner[3]
            branch.repeat(least, most)
    degree, ways, _, _ = groups[0].whole()
    return degree, ways


def _pieces(pattern: str) -> Iterator[tuple[str, int, float]]:
    """Atoms, brackets and choices, with how often what they end comes at least and at most."""
    place = 0
    while place < len(pattern):
        found = _ATOM.match(pattern, place)
        assert found is not None
        piece, place = found.group(), found.end()
        if piece == "(" and (mark := _GROUP.match(pattern, place)):
            place = mark.end()
        repeat = _REPEAT.match(pattern, place) if piece not in ("(", "|") else None
        if repeat is None:
            yield piece, 1, 1
            continue
        place = repeat.end()
        sign = repeat.group()
        low, comma, high = repeat.groups()
        least = int(low or 0) if sign[0] == "{" else int(sign == "+")
        most: float = 1 if sign == "?" else math.inf
        if sign[0] == "{":
            most = int(high) if high else math.inf if comma else least
        if sign in "*+?" and pattern[place : place + 1] in ("?", "+"):
            if pattern[place] == "+":  # what it took it keeps
                most = max(least, 1)
            place += 1
        yield piece, least, max(least, most)


def shortest(pattern: str) -> int:
    """A lower bound of the bytes that an expression matches: 0 where it is not plain to see."""
    if any(mark in pattern for mark in "(|"):
        return 0
    place = count = 0
    while place < len(pattern):
        found = _ATOM.match(pattern, place)
        if found is None:
            return 0
        place = found.end()
        if found.group() in ("^", "$") or found.group() in (r"\b", r"\B", r"\A", r"\z", r"\Z"):
            continue
        repeat = _REPEAT.match(pattern, place)
        least = 1
        if repeat is not None:
            place = repeat.end()
            mark = repeat.group()
            least = 0 if mark in "*?" else 1 if mark == "+" else int(repeat.group(1) or 0)
        count += least
    return count
