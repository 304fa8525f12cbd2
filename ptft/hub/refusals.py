"""What went wrong between us and the Hub, in one line that says what to do about it.

The client's own messages run over several lines and name the address that was asked; a token is
in none of them, and is cut out of whatever a server says all the same.
"""

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ptft.errors import HubError, suggest
from ptft.reach import why_unreachable

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

__all__ = ["explained", "is_away", "token_of"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_XET = re.compile(r"\((?P<status>4\d\d)\b.*/xet-(?:write|read)-token", re.DOTALL)
_KEPT = "what went through already is not sent twice"
_LOG_IN = "run: hf auth login, or set HF_TOKEN"


def token_of(api: "HfApi") -> str | None:
    """The token that a client sends: its own, else that of ``hf auth login`` or HF_TOKEN."""
    from huggingface_hub import get_token

    if isinstance(api.token, str):
        return api.token
    return None if api.token is False else get_token()


@contextmanager
def explained(
    repo: str, api: "HfApi", *, revision: str | None = None, doing: str
) -> Iterator[None]:
    """Raise what the Hub's client raises as a HubError of one line.

    Args:
        repo: ``org/name``, which the message names.
        api: the client; it is asked for near misses of a revision that does not exist.
        revision: the branch, tag or commit that is asked for.
        doing: ``push`` or ``pull``.
    """
    import httpx2
    from huggingface_hub.errors import RevisionResolutionError

    try:
        yield
    except (httpx2.HTTPError, OSError, ValueError, RuntimeError, RevisionResolutionError) as error:
        message = _explain(error, repo, api, revision, doing)
        token = token_of(api)
        if token:
            message = message.replace(token, "(token)")
        raise HubError(f"{repo}: {message}") from error


def is_away(error: HubError) -> bool:
    """Whether the Hub gave no answer, or only that it is in trouble; not where it refused."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    for cause in _chain(error):
        if isinstance(cause, HfHubHTTPError):
            return cause.response.status_code >= 500
        if isinstance(cause, httpx2.HTTPError | ConnectionError):
            return True
    return False


def _explain(
    error: BaseException, repo: str, api: "HfApi", revision: str | None, doing: str
) -> str:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            place = f" ({cause.filename})" if cause.filename else ""
            return f"the disk is full{place}: {cause.strerror}; what is complete is kept"
    if (xet := _XET.search(" ".join(map(str, chain)))) is not None:
        if xet["status"] in ("401", "403"):
            return f"this token has no right to {doing} (Xet storage answers {xet['status']})"
        return f"{api.endpoint} has no Xet storage; set HF_HUB_DISABLE_XET=1 and {doing} again"
    for cause in chain:
        if isinstance(cause, OfflineModeIsEnabled):
            held = "a push needs the Hub" if doing == "push" else "the cache lacks some of it"
            return f"{why_unreachable(api.endpoint)}, and {held}; {doing} again: {_KEPT}"
        if isinstance(cause, HfHubHTTPError):
            return _explain_answer(cause, repo, api, revision, doing)
    if any(isinstance(cause, httpx2.HTTPError | ConnectionError) for cause in chain):
        kind = type(next(c for c in chain if isinstance(c, httpx2.HTTPError | ConnectionError)))
        return f"cannot reach {api.endpoint} ({kind.__name__}); {doing} again: {_KEPT}"
    return _one_line(error)


def _explain_answer(
    error: "HfHubHTTPError", repo: str, api: "HfApi", revision: str | None, doing: str
) -> str:
    """What an answer of the Hub means."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    token = token_of(api)
    if isinstance(error, GatedRepoError):
        how = f"ask for access at {api.endpoint}/{repo}" if token else _LOG_IN
        return f"gated, and {'this token is not let in' if token else 'there is no token'}; {how}"
    if isinstance(error, RepositoryNotFoundError):
        hidden = "this token may not see it" if token else f"there is no token ({_LOG_IN})"
        return f"no such repository on {api.endpoint}, or it is private and {hidden}"
    if isinstance(error, RevisionNotFoundError):
        return f"no revision {revision!r}; {suggest(str(revision), _refs(api, repo))}"
    said = _one_line(error.server_message or "") or f"status {status}"
    answers: dict[int, str] = {
        401: f"the token is not valid (mistyped, expired or revoked); {_LOG_IN}"
        if token
        else f"there is no token; {_LOG_IN}",
        403: f"this token has no right to {doing} ({said})",
        409: f"conflict: {said}",
        412: f"{revision} was changed by somebody else during this push, which therefore "
        "published nothing; look at the change and push again",
        413: f"too large for {api.endpoint} ({said})",
        429: f"{api.endpoint} is asked too often ({said}); wait and {doing} again",
        507: f"no room left on {api.endpoint} ({said})",
    }
    if status >= 500 and status not in answers:
        return f"{api.endpoint} is in trouble ({said}, status {status}); {doing} again later"
    return answers.get(status, f"{api.endpoint} refused: {said}")


def _refs(api: "HfApi", repo: str) -> Iterable[str]:
    """Branches and tags, for near misses; none where even they cannot be asked for."""
    found = _quietly(lambda: api.list_repo_refs(repo))
    return [ref.name for ref in (*found.branches, *found.tags)] if found else []


def _quietly(ask: Callable[[], Any]) -> Any:
    import httpx2

    try:
        return ask()
    except (httpx2.HTTPError, OSError):
        return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from or during."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
