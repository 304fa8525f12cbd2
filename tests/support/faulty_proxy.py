"""A proxy on loopback that cuts connections, answers 503 and is slow, as a draw says."""

import random
import socket
import threading
import time
from types import TracebackType
from typing import Self

__all__ = ["FaultyProxy"]

_REFUSAL = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultyProxy:
    """Passes connections on to a port, but for a share of them.

    Args:
        port: on loopback, of the server.
        share: of connections that meet a fault; a third each are cut, refused and slow.

    Attributes:
        port: of the proxy.
        faults: so far.
    """

    def __init__(self, port: int, *, share: float, seed: int = 0) -> None:
        self.faults = 0
        self._upstream = port
        self._share = share
        self._draw = random.Random(seed)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        fate = "passed"
        if self._draw.random() < self._share:
            fate = self._draw.choice(["cut", "refused", "slow"])
            self.faults += 1
        most = self._draw.randrange(20_000) if fate == "cut" else None
        try:
            if fate == "slow":
                time.sleep(self._draw.uniform(0.1, 1.0))
            if fate == "refused":
                client.recv(65536)
                client.sendall(_REFUSAL)
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self._upstream))
        except OSError:
            client.close()
            return
        for one, other, limit in ((client, server, most), (server, client, None)):
            threading.Thread(target=_pass_on, args=(one, other, limit), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, most: int | None) -> None:
    """Bytes from one to the other until either ends, or ``most`` are through."""
    passed = 0
    try:
        while data := source.recv(65536):
            if most is not None and (passed := passed + len(data)) > most:
                break
            target.sendall(data)
    except OSError:
        pass
    for one in (source, target):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
        finally:
            one.close()
