"""Two spaces never mix: a request that names a digest is answered by that model, or not at all."""

import re

from serving.encoder import Encoder
from serving.refusal import Refusal

__all__ = ["check_digest", "is_digest"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(name: str) -> bool:
    """Whether a name is a model folder's digest, and no other name."""
    return bool(_DIGEST.fullmatch(name))


def check_digest(encoder: Encoder, asked: str | None, key: str) -> None:
    """Refuse a request that is for another model.

    The connection is closed, so that the client's next attempt may reach a pod that has it.

    Args:
        asked: a digest, or None where the client leaves it open.
        key: of the request, for the message.

    Raises:
        Refusal: 400 for what is no digest; 421, naming the model that is served.
    """
    served = encoder.model.info.digest
    if asked is None or asked == served:
        return
    if not is_digest(asked):
        what = f"{key}: {asked[:80]!r}; allowed: sha256: and 64 hex digits"
        raise Refusal(400, "invalid", what)
    what = f"{key}: {asked} is not served here; served: {served}"
    raise Refusal(421, "other_model", what, close=True)
