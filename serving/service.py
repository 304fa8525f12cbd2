"""The BentoML service: ``bentoml serve serving.service:Ptft``.

BentoML packages the app, starts the worker and starts it again; every request goes to an app of our
own (``serving.routes``), the same that ``python -m serving`` runs. BentoML's own API methods are
not used: their batching waits for company after a burst, and their image fields fetch URLs. Nor are
its pages, which load from elsewhere.

Four things are hooked here and nowhere else:

- BentoML's app is replaced by ours, by the middleware that it lets a service add;
- uvicorn, which BentoML starts with settings of its own, finds our protocol where it looks for one
  (``uvicorn.config.HTTP_PROTOCOLS``): limits on headers, time and connections;
- BentoML's usage tracker is off, whoever starts it and however;
- the listening socket, which BentoML's supervisor holds, is also given to a door
  (``serving.door``), which says 503 while no worker accepts.
"""

import os
from pathlib import Path
from typing import Any

import bentoml
import uvicorn.config
from bentoml._internal.utils.analytics import usage_stats

from ptft.errors import PtftError
from serving.door import Door
from serving.first_run import FirstRuns, check_there
from serving.keys import check_keys
from serving.logs import write_logs
from serving.protocol import NAME
from serving.routes import create_app
from serving.settings import INDEX, KEYS_FILE, MODEL, SIGNED_BY, read_settings

__all__ = ["Ptft", "app"]

os.environ[usage_stats.BENTOML_DO_NOT_TRACK] = "true"
usage_stats.do_not_track.cache_clear()  # the command has asked before this was imported

app = create_app(read_settings)
uvicorn.config.HTTP_PROTOCOLS["auto"] = NAME


@bentoml.service(
    name="ptft",
    workers=1,  # a model is held once; threads inside onnxruntime use the other CPUs
    traffic={"timeout": 3600},  # the deadline is PTFT_TIMEOUT_S; this one would answer less clearly
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
    metrics={"enabled": False},  # ours are on /metrics; see serving.metrics
)
class Ptft:
    """Joint image-text embeddings and classification."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Refuse settings that no worker could serve with, in one line; of a model that none could
        serve the worker says so, and this process ends with it.

        BentoML starts workers in its own folder, so paths are made absolute here, where the
        working directory is still that of the shell that gave it.
        """
        for name in (MODEL, KEYS_FILE, INDEX, SIGNED_BY):
            if given := os.environ.get(name, "").strip():
                os.environ[name] = str(Path(given).expanduser().absolute())
        try:
            settings = read_settings()
            check_keys(settings)
            check_there(settings)
        except PtftError as error:
            raise SystemExit(f"ptft: {error}") from None  # or it would come under a traceback
        write_logs(settings.log_format)
        FirstRuns(ends_by_signal=True)
        _open(Door(settings.hold_s))


def _ours(_: Any) -> Any:
    """A middleware that passes nothing on to BentoML's own app."""
    return app


Ptft.add_asgi_middleware(_ours)  # type: ignore[attr-defined]


def _open(door: Door) -> None:
    """Open the door on the socket that BentoML's supervisor is about to listen on."""
    from circus.sockets import CircusSocket

    listen = CircusSocket.bind_and_listen

    def listen_and_open(self: Any) -> None:
        listen(self)
        if not self.is_unix:
            door.open(self)

    CircusSocket.bind_and_listen = listen_and_open
