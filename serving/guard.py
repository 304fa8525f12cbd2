"""At the door of every request: whose key it brings, and whether that may ask now.

Where no key is known to the service it is open. The paths of probes are open to everybody, and so
is what a browser loads before anyone could give it a key.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope

from ptft.errors import PtftError
from serving.asked import CALLER
from serving.door import PROBES
from serving.keys import Key, check_keys, find_key, read_keys
from serving.refusal import Refusal
from serving.settings import Settings

__all__ = ["OPEN_PATHS", "KeyGuard"]

logger = logging.getLogger("bentoml.ptft")

OPEN_PATHS = PROBES | {"/", "/docs", "/openapi.json"}
"""Answered to everybody: they say nothing of the model or its users."""

_LOOK_S = 1.0  # between looks at the file
_MOST_BYTES = 512  # of what is sent as a key


@dataclass
class _Use:
    """What of a key's limits is in use."""

    key: Key
    tokens: float
    filled: float  # when, monotonic
    busy: int = 0

    def fill(self, now: float) -> None:
        most = max(self.key.rate, 1.0)
        self.tokens = min(most, self.tokens + (now - self.filled) * self.key.rate)
        self.filled = now


class KeyGuard:
    """Keys and what they may; all methods belong to one event loop.

    Args:
        settings: where the keys are.
        clock: seconds, monotonic.

    Raises:
        UsageError: see ``read_keys``; and where keys are to be asked for, but there are none.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._uses: dict[bytes, _Use] = {}
        self._looked = clock()
        self._seen = self._state_of_file()
        self._take(check_keys(settings))

    @property
    def is_open(self) -> bool:
        """Whether everybody may ask."""
        return self._settings.keys_file is None and not self._settings.keys

    @property
    def is_shared(self) -> bool:
        """Whether several callers share the service."""
        return len(self._uses) > 1

    def needs_key(self, path: str) -> bool:
        """Whether a path is answered to those alone who bring one."""
        if self.is_open or path in OPEN_PATHS:
            return False
        return path != "/metrics" or self._settings.metrics == "key"

    def enter(self, scope: Scope) -> Callable[[], None]:
        """Let a request in; what is returned is to be called when it has been answered.

        Sets the name of its key in the scope.

        Raises:
            Refusal: 401 no key, or one that nobody has; 403 one that is over; 429 beyond its
                limits.
        """
        if not self.needs_key(scope["path"]):
            return _nothing
        self._look()
        use = self._find(_secret(scope))
        scope[CALLER] = use.key.name
        if use.key.has_expired():
            raise Refusal(403, "key_expired", f"the key of {use.key.name} is over")
        self._check(use)
        use.busy += 1
        if use.key.rate:
            use.tokens -= 1

        def leave() -> None:
            use.busy -= 1

        return leave

    def _find(self, secret: bytes | None) -> _Use:
        how = "allowed: Authorization: Bearer KEY, or x-api-key: KEY"
        if secret is None:
            raise Refusal(401, "no_key", f"no API key; {how}")
        key = None
        if len(secret) <= _MOST_BYTES:
            key = find_key((use.key for use in self._uses.values()), secret)
        if key is None:
            raise Refusal(401, "wrong_key", "an API key that nobody has here")
        return self._uses[key.digest]

    def _check(self, use: _Use) -> None:
        key = use.key
        if key.concurrency and use.busy >= key.concurrency:
            what = f"{use.busy} requests of {key.name} are being answered; allowed at once"
            raise Refusal(429, "key_concurrency", f"{what}: {key.concurrency}", retry_after=1)
        if key.rate:
            use.fill(self._clock())
            if use.tokens < 1:
                wait = max(1, math.ceil((1 - use.tokens) / key.rate))
                what = f"{key.name} asks too often; allowed: {key.rate:g} requests a second"
                raise Refusal(429, "key_rate", what, retry_after=wait)

    def _look(self) -> None:
        """Read the file again where it has changed; what cannot be read changes nothing."""
        now = self._clock()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        state = self._state_of_file()
        if state == self._seen:
            return
        self._seen = state
        try:
            keys = read_keys(self._settings.keys_file, self._settings.keys)
        except PtftError as error:
            logger.error("%s; the keys stay as they were", error)
            return
        self._take(keys)
        if not keys:
            logger.warning("API keys read again: none is left, and everybody is refused")
        else:
            logger.info("API keys read again: %d", len(keys))

    def _take(self, keys: list[Key]) -> None:
        """Who had a key before keeps what is in use of it."""
        now, before, self._uses = self._clock(), self._uses, {}
        for key in keys:
            use = before.get(key.digest) or _Use(key, max(key.rate, 1.0), now)
            use.key = key
            self._uses[key.digest] = use

    def _state_of_file(self) -> tuple[int, ...] | None:
        if self._settings.keys_file is None:
            return None
        try:
            found = os.stat(self._settings.keys_file)  # noqa: PTH116 - a Path's takes twice as long
        except OSError:
            return ()
        return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _secret(scope: Scope) -> bytes | None:
    """What a request brings as a key."""
    brought: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, secret = bytes(value).strip().partition(b" ")
            if scheme.lower() == b"bearer":
                return secret.strip()
        elif name == b"x-api-key":
            brought = bytes(value).strip()
    return brought


def _nothing() -> None:
    pass
