"""``python -m serving.worker --fd N``: the app, on the socket of ``python -m serving``."""

import argparse
import logging
import socket
import sys

import uvicorn

from ptft.errors import PtftError
from serving.keys import check_keys
from serving.logs import write_logs
from serving.protocol import Protocol
from serving.routes import create_app
from serving.settings import read_settings

__all__ = ["main"]

logger = logging.getLogger("bentoml.ptft")


def main() -> None:
    """Serve until SIGTERM; what is wrong with the settings, keys among them, is one line."""
    parser = argparse.ArgumentParser(description="One worker; see python -m serving.")
    parser.add_argument("--fd", type=int, required=True, help="of the listening socket")
    listening = socket.socket(fileno=parser.parse_args().fd)
    try:
        settings = read_settings()
        write_logs(settings.log_format)
        check_keys(settings)
    except PtftError as error:  # a file of keys may change while the service runs
        logger.error("%s", error)
        sys.exit(error.exit_code)
    config = uvicorn.Config(
        create_app(read_settings),
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks who or what stands before it
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
