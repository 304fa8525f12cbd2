"""The README and the pages under docs, as what stands in their fences.

A fence's first word is its language. More words say what its commands need that no test machine
has: ``gpu``, ``network``, ``cluster``; those are held to their programs' arguments and not run.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ELSEWHERE", "MARKS", "REPO", "Fence", "commands", "fences", "pages"]

REPO = Path(__file__).resolve().parents[2]
MARKS = ("gpu", "network", "cluster")
ELSEWHERE = "clients"
"""Mark of Python that ``tests/serving/test_http_clients.py`` runs, with others' libraries."""


@dataclass(frozen=True)
class Fence:
    """A block of a page: the words behind its opening mark, and what is in it."""

    page: str
    language: str
    marks: tuple[str, ...]
    text: str

    @property
    def file(self) -> str | None:
        """The file that a YAML block is, by its first line: ``# shoes.yaml``."""
        named = re.match(r"# (\S+\.yaml)\n", self.text)
        return named[1] if named else None


def pages() -> list[Path]:
    """All of them, in the order in which they are gone through."""
    docs = REPO / "docs"
    first = [REPO / "README.md", docs / "index.md", docs / "tutorial.md"]
    return first + sorted(set(docs.rglob("*.md")) - set(first))


def fences(page: Path) -> list[Fence]:
    """The blocks of a page, but for what Sphinx makes of some (``{toctree}``)."""
    found = re.findall(r"^```([^\n`]*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    name = page.relative_to(REPO).as_posix()
    kept = []
    for info, text in found:
        language, *marks = info.split() or [""]
        if not language.startswith("{"):
            kept.append(Fence(name, language, tuple(marks), text))
    return kept


def commands(text: str) -> list[str]:
    """Lines of a shell block, comments off."""
    lines = [re.sub(r"\s+#.*", "", line) for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def is_plain(line: str) -> bool:
    """Whether a line is one program with its arguments, and nothing that only a shell does."""
    return shlex.split(line)[:1] == ["ptft"] and not set(re.sub(r"'[^']*'", "", line)) & set(
        "|<>&;$"
    )
