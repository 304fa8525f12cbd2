"""Where a URL leads to: scheme, host and port, in one spelling."""

import re
from urllib.parse import urlsplit

__all__ = ["Origin", "host_of", "origin_of"]

Origin = tuple[str, str, int]
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f.]*:[0-9a-f:.]*")
_PORTS = {"http": 80, "https": 443}


def host_of(name: str) -> Origin:
    """A host as ``PTFT_URL_HOSTS`` names it: https, unless ``http://`` stands before it.

    Raises:
        ValueError: saying what is allowed.
    """
    url = name if "://" in name else f"https://{name}"
    try:
        found, parts = origin_of(url), urlsplit(url)
    except ValueError:
        parts = None
    if (
        parts is None
        or not _HOST.fullmatch(found[1])
        or parts.path
        or parts.query
        or parts.fragment
    ):
        raise ValueError("allowed: HOST, HOST:PORT or http://HOST, a whole name each")
    return found


def origin_of(url: str) -> Origin:
    """Scheme, host and port of a URL.

    Raises:
        ValueError: it is no http or https URL, or has a name or a password in it.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
        raise ValueError("it leads to what is no http or https URL")
    try:
        name = host if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        raise ValueError("its host is no name") from None
    return parts.scheme, name, parts.port or _PORTS[parts.scheme]
