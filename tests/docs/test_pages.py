"""What the pages say of the code: messages, files, figures; and what the built site asks for."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from ptft.artifact import FolderFiles, RunFiles
from tests.docs.pages import REPO, pages

DOCS = REPO / "docs"


@cache
def messages() -> list[str]:
    """Every text in the code; what is put in is a mark that no text has."""
    found = []
    for path in sorted([*(REPO / "ptft").rglob("*.py"), *(REPO / "serving").rglob("*.py")]):
        found += [_text(node) for node in ast.walk(ast.parse(path.read_text()))]
    return [text for text in found if text]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _text(part) if isinstance(part, ast.Constant) else "\0" for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (_text(node.left) or "\0") + (_text(node.right) or "\0")
    return ""


QUOTED = [
    span
    for line in (DOCS / "reference" / "errors.md").read_text().splitlines()
    if line.startswith("### ")
    for span in re.findall(r"`([^`]+)`", line)
]


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_one_that_the_code_has(quoted: str) -> None:
    parts = [re.escape(part) for part in quoted.split("...")]
    wanted = re.compile(r"[^\n]*".join(parts))
    assert any(wanted.search(text) for text in messages()), quoted


def test_there_are_messages_to_hold() -> None:
    assert len(QUOTED) > 30


@pytest.mark.parametrize("names", [RunFiles, FolderFiles], ids=lambda names: names.__name__)
def test_every_file_of_an_artefact_is_told_of(names: type) -> None:
    text = (DOCS / "reference" / "files.md").read_text()
    files = [name for key, name in vars(names).items() if key.isupper() and isinstance(name, str)]
    assert files
    assert not [name for name in files if name not in text]


def test_the_site_is_built_strictly_and_asks_no_other_place(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", DOCS, tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = (tmp_path / "site" / "reference" / "recipe.html").read_text()
    assert "samples_seen" in recipe
    loads = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"([^\"]+)|<link[^>]*\shref=\"([^\"]+)")
    for page in (tmp_path / "site").rglob("*.html"):
        for match in loads.finditer(page.read_text()):
            address = match[1] or match[2]
            assert not re.match(r"(?:https?:)?//", address), f"{page.name}: {address}"
    for style in (tmp_path / "site" / "_static").rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text()), style.name


def test_every_benchmark_that_a_page_names_is_there() -> None:
    there = {path.stem for path in (REPO / "tests" / "bench").glob("[a-z]*.py")}
    named = {
        name
        for page in pages()
        for name in re.findall(r"python -m tests\.bench ([a-z_]+)", page.read_text())
    }
    assert named
    assert named <= there, named - there
