"""Environment variables to values: what is wrong with one is said with its name, its value and what
is allowed."""

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ptft.errors import UsageError, suggest

__all__ = ["Variables"]

_DIGITS = 18  # of a whole number: 64 bits hold it
_SHOWN = 200  # characters of a value
_CREDENTIALS = re.compile(r"^(\w+://)?.*@")


class Variables:
    """Variables of one prefix; one that is empty is one that is not set.

    Args:
        environment: where they stand.
        prefix: of all names, which the methods are given without it.
    """

    def __init__(self, environment: Mapping[str, str], prefix: str) -> None:
        self._environment = environment
        self._prefix = prefix

    def text(self, name: str) -> str:
        """As it stands, but for spaces around it."""
        return self._environment.get(self._prefix + name, "").strip()

    def path(self, name: str) -> Path | None:
        """A path; None where none is given."""
        if not (raw := self.text(name)):
            return None
        try:
            return Path(raw).expanduser()
        except RuntimeError as error:  # ~ of nobody
            raise self.wrong(name, raw, str(error)) from None

    def number(self, name: str, fallback: int, low: int) -> int:
        """A whole number of at least ``low``."""
        raw = self.text(name)
        if not raw:
            return fallback
        if (value := _whole(raw)) is None or value < low:
            raise self.wrong(name, raw, f"allowed: a whole number of at least {low}")
        return value

    def seconds(self, name: str, fallback: float, low: float) -> float:
        """Seconds, from ``low`` to an hour."""
        return self.within(name, fallback, low, 3600, "seconds from {:g} to {:g}")

    def share(self, name: str, fallback: float) -> float:
        """A share of 1."""
        return self.within(name, fallback, 0, 1, "a share, {:g} to {:g}")

    def within(self, name: str, fallback: float, low: float, high: float, what: str) -> float:
        """A number between two; ``what`` says so in a message, with a place for each of them."""
        raw = self.text(name)
        try:
            value = float(raw) if raw else fallback
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise self.wrong(name, raw, f"allowed: {what.format(low, high)}")
        return value

    def choice(self, name: str, fallback: str, allowed: Collection[str]) -> str:
        """One of several words."""
        value = self.text(name) or fallback
        if value not in allowed:
            raise self.wrong(name, value, suggest(value, allowed))
        return value

    def words(self, name: str, fallback: tuple[str, ...], allowed: Collection[str]) -> tuple:
        """Several of several words, separated by commas."""
        found = self.listed(name)
        for word in found:
            if word.lower() not in allowed:
                raise self.wrong(name, word, suggest(word.lower(), allowed))
        return tuple(word.lower() for word in found) or fallback

    def listed(self, name: str) -> tuple[str, ...]:
        """What stands between commas."""
        return tuple(word.strip() for word in self.text(name).split(",") if word.strip())

    def numbers(self, name: str) -> tuple[int, ...]:
        """Whole numbers from 1, separated by commas."""
        found = []
        for one in self.listed(name):
            if not (value := _whole(one)):
                raise self.wrong(name, one, "allowed: whole numbers from 1, by commas")
            found.append(value)
        return tuple(found)

    def pairs(self, name: str) -> dict[str, str]:
        """``NAME=VALUE``, separated by commas."""
        found: dict[str, str] = {}
        for pair in self.listed(name):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not key or not equals or key in found:
                raise self.wrong(name, pair, "allowed: NAME=VALUE,NAME=VALUE, each name once")
            found[key] = value
        return found

    def digest(self, name: str) -> str:
        """``sha256:`` and 64 hex digits, or nothing."""
        digest = self.text(name)
        scheme, _, digits = digest.partition(":")
        good = scheme == "sha256" and len(digits) == 64 and set(digits) <= set("0123456789abcdef")
        if digest and not good:
            raise self.wrong(name, digest, "allowed: sha256: and 64 hex digits")
        return digest

    def address(self, name: str, raw: str | None = None, *, path: bool) -> str:
        """http:// or https://, a host, and perhaps a port; and a path where there may be one.

        Args:
            raw: one of those that the variable holds; None: all that it holds.
        """
        raw = self.text(name) if raw is None else raw
        try:
            parts = urlsplit(raw)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port  # raises where it is none
        except ValueError:
            good = False
        if "@" in raw:
            shown = _CREDENTIALS.sub(r"\1***@", raw)
            raise self.wrong(name, shown, "allowed: an address without a name or a password")
        if not good or parts.query or parts.fragment or (parts.path and not path):
            shape = "http://host:port/path" if path else "http://host:port"
            raise self.wrong(name, raw, f"allowed: {shape}, or https")
        return raw

    def wrong(self, name: str, value: str, allowed: str) -> UsageError:
        """The error of a variable."""
        value = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
        return UsageError(f"{self._prefix}{name}={value}: {allowed}")


def _whole(text: str) -> int | None:
    """A whole number in digits; None where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None
