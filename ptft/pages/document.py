"""A page in one file: a browser that shows it asks no address, and runs no script but its own.

Pages are Jinja templates of the package that makes them, which extend ``document.html``. Whatever
is not markup of a template is escaped; what would turn the order of reading, or is no character of
text, is written out; a name that a template does not know is an error.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ptft.printable import printable

__all__ = ["environment", "render"]

_OWN = "ptft.pages"


def render(
    package: str,
    template: str,
    *,
    title: str,
    generator: str,
    style: str,
    shared: Sequence[str] = (),
    script: str = "",
    **values: object,
) -> str:
    """Render a whole HTML file.

    Args:
        package: the files' own.
        template: a file that extends ``document.html`` and fills its ``body``.
        title: in the browser's tab.
        generator: what wrote the page.
        style: a CSS file, put behind ``base.css``, which all pages share.
        shared: CSS files that some pages share, put between the two.
        script: a file with the only script that may run, at the end of the body.
        values: what the template calls by name.
    """
    styles = "".join(_asset(_OWN, name) for name in ("base.css", *shared)) + _asset(package, style)
    allowed = ["default-src 'none'", "img-src data:", f"style-src {_source(styles)}"]
    code = _asset(package, script) if script else ""
    if code:
        allowed.append(f"script-src {_source(code)}")
    return (
        environment(package)
        .get_template(template)
        .render(
            title=title,
            generator=generator,
            policy="; ".join(allowed),
            styles=Markup(styles),  # noqa: S704 (files of this library)
            script=Markup(code),  # noqa: S704
            **values,
        )
    )


@cache
def environment(package: str) -> Environment:
    """The templates of a package, and those that all pages share."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(name, "") for name in (package, _OWN)]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _text(value: Any) -> Any:
    """Prepare what a template puts in: markup stays, all else becomes text that can be read."""
    return value if isinstance(value, Markup) else printable(str(value), lines=True)


def _asset(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
