"""Whether the Hub answers, found out in seconds.

Hugging Face's clients ask a Hub that does not answer again and again, each request on its own, and
a name that was mistyped takes a minute to be told of. Here one question comes first; where it stays
without an answer, the clients are told that they are offline, and take what is in the cache.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["answers", "hub_at_hand", "why_unreachable"]

_PATIENCE = 4.0  # seconds for an answer, of whatever kind
_REMEMBERED = 60.0  # seconds for which an absent Hub is not asked again
answers: dict[str, tuple[float, str | None]] = {}  # endpoint -> when, and why not


def why_unreachable(endpoint: str | None = None) -> str | None:
    """Why the Hub cannot be asked, in words that name it; None: it answers.

    Args:
        endpoint: of the Hub; None: HF_ENDPOINT's, else huggingface.co.
    """
    from huggingface_hub import constants

    place = endpoint or constants.ENDPOINT
    when, reason = answers.get(place, (0.0, None))
    if reason is not None and time.monotonic() - when < _REMEMBERED:
        return reason
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if place in answers and reason is None:
        return None
    reason = _ask(place)
    answers[place] = (time.monotonic(), reason)
    return reason


@contextmanager
def hub_at_hand(endpoint: str | None = None) -> Iterator[str | None]:
    """Run Hugging Face's clients, on their cache alone where the Hub cannot be asked.

    Gives the reason of that, as :func:`why_unreachable`.
    """
    from huggingface_hub import constants

    reason = why_unreachable(endpoint)
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or reason is not None
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = before


def _ask(endpoint: str) -> str | None:
    """Ask once. In a thread, since looking up a name waits for as long as the system likes."""
    import httpx2
    from huggingface_hub import get_session

    answer: list[str | None] = []

    def ask() -> None:
        try:
            get_session().head(f"{endpoint}/robots.txt", timeout=_PATIENCE, follow_redirects=False)
            answer.append(None)  # whatever it says: somebody is there
        except (httpx2.HTTPError, OSError, ValueError) as error:
            first = str(error).strip().split("\n")[0]
            answer.append(f"cannot reach {endpoint} ({type(error).__name__}: {first})")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE + 0.5)
    if not answer:
        return f"cannot reach {endpoint} (no answer in {_PATIENCE:g} s)"
    return answer[0]
