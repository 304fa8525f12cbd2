"""What the service says instead of an answer: a status, a kind for programs, words for people."""

import re

__all__ = ["Refusal", "no_such_path"]

_KEY = re.compile(
    r"[a-z_]+(-[a-z]+)*(\[\d+\]|\.\w+)*"
)  # at the beginning of a message: the key it is about

_MOST = 4096  # characters of a message: what was asked for is quoted in it

_ABOUT_A_KEY = (400, 404, 413, 421, 422)


class Refusal(Exception):  # noqa: N818 (an answer, not an error of the service)
    """A request that is not answered; it never leaves the process as anything but HTTP.

    The answer's body is the same on every path, and what OpenAI's clients read::

        {"error": {"type": "invalid", "code": "invalid", "message": "top_k: ...",
                   "param": "top_k", "request_id": "..."}}

    Args:
        status: HTTP status.
        kind: a stable word for clients and for the metric ``ptft_rejected_total``.
        message: names what was asked for and what is allowed; begins with the key, if it is one's.
        retry_after: seconds after which asking again makes sense.
        close: end the connection: what else comes on it is not to be read.
        allow: methods that the path has, of a 405.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        retry_after: int | None = None,
        close: bool = False,
        allow: str = "",
    ) -> None:
        super().__init__(message if len(message) <= _MOST else f"{message[:_MOST]}...")
        self.status = status
        self.kind = kind
        self.retry_after = retry_after
        self.close = close
        self.allow = allow

    def content(self, request_id: str) -> dict[str, dict[str, str | None]]:
        """The answer's body."""
        key, colon, _ = str(self).partition(": ")
        about = key if colon and self.status in _ABOUT_A_KEY and _KEY.fullmatch(key) else None
        return {
            "error": {
                "type": self.kind,
                "code": self.kind,
                "message": str(self),
                "param": about,
                "request_id": request_id,
            }
        }

    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        found = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if self.close:
            found["connection"] = "close"
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        if self.allow:
            found["allow"] = self.allow
        return found


def no_such_path(path: str) -> Refusal:
    """Of a path that nothing answers."""
    return Refusal(404, "no_such_path", f"{path:.200}: no such path; see /docs")
