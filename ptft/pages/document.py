"""A page in one file: a browser that shows it asks no address, and runs no script but its own."""

import base64
import hashlib
from importlib.resources import files

from ptft.pages.markup import Child, Markup, element, join

__all__ = ["asset", "document"]


def asset(package: str, name: str) -> Markup:
    """A file of a package (a style sheet, a script) as it is."""
    return Markup(files(package).joinpath(name).read_text(encoding="utf-8"))


def document(
    title: str, *children: Child, style: Markup, script: Markup | None = None, generator: str
) -> str:
    """A whole HTML file.

    Args:
        children: of the body, plain text escaped.
        style: CSS, put behind ``base.css``, which all pages share.
        script: the only one that may run, at the end of the body.
        generator: what wrote the page.
    """
    styles = Markup(asset("ptft.pages", "base.css") + style)
    allowed = ["default-src 'none'", "img-src data:", f"style-src {_source(styles)}"]
    if script is not None:
        allowed.append(f"script-src {_source(script)}")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content="; ".join(allowed)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=generator),
        element("title", title),
        element("style", styles),
    )
    body = element("body", *children, None if script is None else element("script", script))
    return join((Markup("<!DOCTYPE html>"), element("html", head, body, lang="en"))) + "\n"


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
