"""Log lines: for a console, or an object of JSON each; with the id of the request that they are of.

What clients send is never in them: no header, no query, no body; of a key only its name.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from ptft.printable import printable

__all__ = ["CURRENT_ID", "log_access", "write_logs"]

CURRENT_ID: ContextVar[str] = ContextVar("CURRENT_ID", default="")
"""Id of the request that is being answered; empty outside of any."""

_access = logging.getLogger("bentoml.ptft.access")
_OF_SERVERS = ("bentoml", "circus", "uvicorn", "uvicorn.error")
_LEVELS = {"bentoml": logging.INFO}


def write_logs(log_format: str) -> None:
    """Have everything that this process logs written to stderr.

    Args:
        log_format: ``console`` or ``json``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Console())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _OF_SERVERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(_LEVELS.get(name, logging.WARNING))
    logging.captureWarnings(True)


def log_access(
    method: str, path: str, status: int, seconds: float, size: int, caller: str, reason: str
) -> None:
    """One request, answered; ``size`` bytes of body."""
    fields = {
        "method": method,
        "path": path[:200],
        "status": status,
        "seconds": round(seconds, 6),
        "bytes": size,
        "key": caller,
        "reason": reason,
    }
    fields = {name: value for name, value in fields.items() if value != ""}
    _access.info("%s %s %d", method, fields["path"], status, extra={"fields": fields})


class _Json(logging.Formatter):
    """An object a line."""

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := CURRENT_ID.get():
            found["request_id"] = request_id
        found |= getattr(record, "fields", {})
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False, default=str)


class _Console(logging.Formatter):
    """Words, and after them what is known by name; nothing in them steers a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        line = super().formatMessage(record)
        given = getattr(record, "fields", {})
        shown = {
            name: given[name] for name in ("seconds", "bytes", "key", "reason") if name in given
        }
        if request_id := CURRENT_ID.get():
            shown["id"] = request_id
        return printable(" ".join([line, *(f"{name}={value}" for name, value in shown.items())]))
