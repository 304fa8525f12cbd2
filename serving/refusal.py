"""What the service says instead of an answer: a status, a kind for programs, words for people."""

__all__ = ["Refusal"]


class Refusal(Exception):  # noqa: N818 (an answer, not an error of the service)
    """A request that is not answered; it never leaves the process as anything but HTTP.

    Args:
        status: HTTP status.
        kind: a stable word for clients and for the metric ``ptft_rejected_total``.
        message: names what was asked for and what is allowed.
        retry_after: seconds after which asking again makes sense.
    """

    def __init__(
        self, status: int, kind: str, message: str, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after

    def content(self) -> dict[str, dict[str, str]]:
        """The answer's body."""
        return {"error": {"type": self.kind, "message": str(self)}}

    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
