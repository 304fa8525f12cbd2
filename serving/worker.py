"""``python -m serving.worker --fd N``: the app, on the socket of ``python -m serving``."""

import argparse
import socket

import uvicorn

from serving.logs import write_logs
from serving.protocol import Protocol
from serving.routes import create_app
from serving.settings import read_settings

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="One worker; see python -m serving.")
    parser.add_argument("--fd", type=int, required=True, help="of the listening socket")
    listening = socket.socket(fileno=parser.parse_args().fd)
    write_logs(read_settings().log_format)
    config = uvicorn.Config(
        create_app(read_settings),
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
