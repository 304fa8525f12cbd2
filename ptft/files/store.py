"""Stores that fsspec speaks to: opened by an address or a path, and their errors in one line."""

from typing import Any

import fsspec

from ptft.errors import MissingExtraError, PtftError
from ptft.printable import hide_credentials

__all__ = ["open_store", "store_error"]

_EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}


def open_store(url: str, error: type[PtftError]) -> tuple[Any, str]:
    """The file system of an address or a path, and the path in it.

    Args:
        error: what is raised, see :func:`store_error`.

    Raises:
        MissingExtraError: the store's package is not installed.
        error: there is no such store, or it does not answer.
    """
    protocol = url.partition("://")[0].lower()
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as reason:
        if protocol in _EXTRAS:
            raise MissingExtraError(*_EXTRAS[protocol]) from None
        raise store_error(url, reason, error) from None  # which says what to install
    except Exception as reason:  # each store raises its own
        raise store_error(url, reason, error) from None
    return system, path


def store_error(url: str, reason: Exception, error: type[PtftError]) -> PtftError:
    """What a store raised, as ``error``: the address, the kind and what it says, without keys."""
    url = hide_credentials(url)
    if isinstance(reason, FileNotFoundError):
        return error(f"{url}: no such file")
    what = " ".join(hide_credentials(str(reason)).split()) or "no more is said"
    return error(f"{url}: {type(reason).__name__}: {what}")
