"""``python -m serving.probe``: whether the service in this container is alive; exit code 0 or 1.

For HEALTHCHECK, where no cluster probes. It asks ``/livez`` at the port that the container's first
process was given, and imports next to nothing, since it is started again and again.
"""

import socket
import sys
from pathlib import Path

__all__ = ["alive", "port_of"]

_PORT = 3000
_TIMEOUT_S = 4.0


def port_of(command: list[str]) -> int:
    """The port in the words of ``python -m serving --port N``; 3000 where they name none."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        given = following if word == "--port" else word.removeprefix("--port=")
        if word.startswith("--port") and given.isdigit():
            return int(given)
    return _PORT


def alive(port: int) -> bool:
    """Whether ``/livez`` answers 200 on this machine."""
    try:
        with socket.create_connection(("localhost", port), timeout=_TIMEOUT_S) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.sendall(
                b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False


if __name__ == "__main__":
    words = Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
    sys.exit(0 if alive(port_of(words)) else 1)
