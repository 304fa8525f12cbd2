"""``/``: one page that asks this service what its API answers; see ``page.html``.

Nothing of the model, of a user or of a request is in it: what it shows it asks for by its script,
as any client would, and puts in as text. A browser lets it reach this service alone, by its policy.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["page"]


async def page(request: Request) -> Response:
    """The page, the same for everybody."""
    content, headers = _page()
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="text/html")


@cache
def _page() -> tuple[bytes, dict[str, str]]:
    """The three files as one, and what a browser is told of it."""
    here = files("serving")
    html, own, script = (
        here.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    # the colours and tables that the pages of `ptft train` and `ptft data look` have
    style = files("ptft.pages").joinpath("base.css").read_text(encoding="utf-8") + own
    content = html.replace("<style></style>", f"<style>{style}</style>").replace(
        "<script></script>", f"<script>{script}</script>"
    )
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "connect-src 'self'; img-src blob: data:; "
        f"style-src {_source(style)}; script-src {_source(script)}"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        "etag": f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"',
    }
    return content.encode(), headers


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
