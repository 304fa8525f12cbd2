"""The service in a thread of this process, at an address of its own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from serving.routes import create_app
from serving.settings import Settings

__all__ = ["served"]


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """Its address, once the model is there."""
    app = create_app(lambda: settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started or app.state.serving.encoder is None:
            assert thread.is_alive(), "the service has ended"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
