"""Whose word names a request: the client's own, where that may stand in a log; else a new one."""

import random
import re
from collections.abc import Iterable

__all__ = ["HEADER", "request_id"]

HEADER = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_SECRETS = (b"authorization", b"x-api-key")


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Of the headers of a request, names in lower case, or of as many as were read."""
    given, secrets = b"", []
    for name, value in headers:
        if name == HEADER:
            given = bytes(value)
        elif name in _SECRETS:
            secrets.append(bytes(value))
    if _ID.fullmatch(given) and not any(given in secret for secret in secrets):
        return given.decode()
    # no secret; and what asks the system for chance lets go of the interpreter meanwhile
    return f"{random.getrandbits(128):032x}"
