"""API keys: who may ask, how often and how much at once. Only their hashes are kept anywhere.

``python -m serving.keys new NAME`` makes one: the key is shown once, on stderr, and the line that
lets it in is printed for the file of ``PTFT_KEYS_FILE``::

    mobile sha256:9f86d0... rate=20 concurrency=8 expires=2027-06-30

A key is 32 random bytes, so one round of SHA-256 is enough: there is no guessing it, and asking
costs microseconds.
"""

import argparse
import hashlib
import hmac
import math
import re
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from ptft.errors import PtftError, UsageError, suggest
from serving.settings import Settings

__all__ = ["Key", "check_keys", "find_key", "make_key", "parse_keys", "read_keys"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_MOST_BYTES = 1 << 20  # of a file of keys: some 10,000
_MOST = 10**6  # of a limit
_BYTES = 32  # of randomness


@dataclass(frozen=True)
class Key:
    """A line of the file.

    Attributes:
        name: for metrics and logs.
        digest: SHA-256 of the key.
        rate: requests a second; 0: any number.
        concurrency: requests at once; 0: any number.
        expires: the last day (UTC) on which it is good, or None.
    """

    name: str
    digest: bytes
    rate: float = 0.0
    concurrency: int = 0
    expires: date | None = None

    def line(self) -> str:
        """As it stands in a file."""
        words = [self.name, f"sha256:{self.digest.hex()}"]
        words += [f"rate={self.rate:g}"] if self.rate else []
        words += [f"concurrency={self.concurrency}"] if self.concurrency else []
        words += [f"expires={self.expires}"] if self.expires else []
        return " ".join(words)

    def has_expired(self) -> bool:
        """Whether its last day is over."""
        return self.expires is not None and datetime.now(UTC).date() > self.expires


def make_key(name: str) -> tuple[str, Key]:
    """A new key: what its owner sends, and what the service is told of it."""
    secret = f"ptft_{secrets.token_urlsafe(_BYTES)}"
    return secret, Key(name, hashlib.sha256(secret.encode()).digest())


def find_key(keys: Iterable[Key], secret: bytes) -> Key | None:
    """Whose key it is; all are looked at, in a time that does not tell which."""
    digest = hashlib.sha256(secret).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def read_keys(file: Path | None, lines: str) -> list[Key]:
    """The keys of a file and of a variable.

    Raises:
        UsageError: the file cannot be read, or a line is none; what might be a key itself is not
            shown.
    """
    keys = parse_keys(lines.replace(";", "\n"), "PTFT_KEYS")
    if file is not None:
        where = f"PTFT_KEYS_FILE={file}"
        try:
            with file.open("rb") as stream:
                data = stream.read(_MOST_BYTES + 1)
            text = data.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{where}: {error}") from None
        if len(data) > _MOST_BYTES:
            raise UsageError(f"{where}: allowed: at most {_MOST_BYTES} bytes")
        keys += parse_keys(text, where)
    names, digests = Counter(key.name for key in keys), Counter(key.digest for key in keys)
    for key in keys:
        if names[key.name] > 1 or digests[key.digest] > 1:
            what = "name" if names[key.name] > 1 else "hash"
            raise UsageError(f"PTFT_KEYS_FILE, PTFT_KEYS: {key.name}: its {what} stands twice")
    return keys


def check_keys(settings: Settings) -> list[Key]:
    """The keys that settings ask for; none where the service is open.

    Raises:
        UsageError: see ``read_keys``; or there are none where they are asked for.
    """
    keys = read_keys(settings.keys_file, settings.keys)
    if not keys and (settings.keys_file is not None or settings.keys):
        where = "PTFT_KEYS" if settings.keys else f"PTFT_KEYS_FILE={settings.keys_file}"
        raise UsageError(f"{where}: no key in it; python -m serving.keys new NAME makes one")
    if settings.metrics == "key" and not keys:
        raise UsageError("PTFT_METRICS=key: allowed: only with PTFT_KEYS_FILE or PTFT_KEYS")
    return keys


def parse_keys(text: str, where: str) -> list[Key]:
    """Lines to keys; empty ones and what begins with ``#`` are passed over.

    Raises:
        UsageError: naming ``where`` and the line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            found.append(_parse_line(words, f"{where}: line {number}"))
    return found


def _parse_line(words: list[str], where: str) -> Key:
    name, *rest = words
    if not _NAME.fullmatch(name):
        raise UsageError(f"{where}: its name; allowed: letters, digits and . _ -, at most 64")
    match = _HASH.fullmatch(rest[0]) if rest else None
    if match is None:
        raise UsageError(f"{where}: {name}: allowed: NAME sha256: and 64 hex digits, then limits")
    values: dict[str, str] = {}
    for word in rest[1:]:
        limit, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{where}: {name}: a word without =; allowed: {', '.join(_LIMITS)}")
        if limit not in _LIMITS:
            raise UsageError(f"{where}: {name}: {limit:.40}: {suggest(limit, _LIMITS)}")
        if limit in values:
            raise UsageError(f"{where}: {name}: {limit} stands twice")
        values[limit] = value
    try:
        limits = {limit: _LIMITS[limit][0](value) for limit, value in values.items()}
    except _WrongLimit as error:
        raise UsageError(f"{where}: {name}: {error}") from None
    return Key(name, bytes.fromhex(match[1]), **limits)  # type: ignore[arg-type]


class _WrongLimit(Exception):  # noqa: N818 - it becomes a UsageError that knows the line
    pass


def _rate(value: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= _MOST:
        what = f"allowed: requests a second, above 0 and at most {_MOST}"
        raise _WrongLimit(f"rate={value[:40]}: {what}")
    return rate


def _concurrency(value: str) -> int:
    if re.fullmatch(r"0*[1-9]\d{0,6}", value, re.ASCII) is None or int(value) > _MOST:
        raise _WrongLimit(f"concurrency={value[:40]}: allowed: a whole number, 1 to {_MOST}")
    return int(value)


def _expires(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise _WrongLimit(f"expires={value[:40]}: allowed: a day such as 2027-06-30") from None


_LIMITS: dict[str, tuple[Callable[[str], object], str]] = {
    "rate": (_rate, "requests a second"),
    "concurrency": (_concurrency, "requests at once"),
    "expires": (_expires, "the last day on which it is good"),
}


def main(arguments: list[str] | None = None) -> int:
    """``python -m serving.keys new NAME [--rate R] [--concurrency N] [--expires DAY]``."""
    parser = argparse.ArgumentParser(prog="python -m serving.keys", description="API keys.")
    new = parser.add_subparsers(required=True).add_parser(
        "new", help="make a key: it is shown on stderr, its line for the file on stdout"
    )
    new.add_argument("name", help="whose it is, for metrics and logs")
    for limit, (_, what) in _LIMITS.items():
        new.add_argument(f"--{limit}", help=what)
    asked = parser.parse_args(arguments)
    secret, key = make_key(asked.name)
    values = {limit: getattr(asked, limit) for limit in _LIMITS}
    given = [f"{limit}={value}" for limit, value in values.items() if value is not None]
    try:
        key = _parse_line([asked.name, f"sha256:{key.digest.hex()}", *given], "keys new")
    except PtftError as error:
        sys.stderr.write(f"ptft: {error}\n")
        return error.exit_code
    sys.stderr.write(f"the key of {key.name}, which is shown this once: {secret}\n")
    sys.stdout.write(f"{key.line()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
