"""Pages that the code writes, in the place of a mark, and files of the checkout that are pages."""

from collections.abc import Callable
from pathlib import Path

from cli_reference import cli_reference
from recipe_reference import recipe_reference
from sphinx.application import Sphinx

__all__ = ["setup"]

_PARTS: dict[str, Callable[[], str]] = {
    "<!-- recipe reference -->": recipe_reference,
    "<!-- command reference -->": cli_reference,
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry to an extension."""
    app.connect("source-read", _fill)
    app.connect("include-read", _lead)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    for mark, make in _PARTS.items():
        if mark in source[0]:
            source[0] = source[0].replace(mark, make())
            app.env.note_reread()  # what it says comes from the code, whose changes nobody watches


def _lead(app: Sphinx, path: Path, page: str, content: list[str]) -> None:
    """Links from one included file to another lead to the pages that include them."""
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        content[0] = content[0].replace(f"]({name})", f"]({name.lower()})")
