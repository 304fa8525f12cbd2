"""The BentoML service: ``bentoml serve serving.service:Ptft``.

BentoML starts and supervises the worker and brings ``/livez`` and ``/readyz``; what is asked under
``/v1`` goes to an app of our own (``routes``). BentoML's own API methods are not
used: their batching waits for company after a burst, and their image fields fetch URLs.
"""

import os
import subprocess
import sys
from pathlib import Path

import bentoml

from serving.routes import create_app
from serving.settings import MODEL, read_settings

__all__ = ["Ptft", "app"]

app = create_app(read_settings)


@bentoml.service(
    name="ptft",
    workers=1,  # a model is held once; threads inside onnxruntime use the other CPUs
    traffic={"timeout": 3600},  # the deadline is PTFT_TIMEOUT_S; this one would answer less clearly
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
    metrics={"enabled": False},  # ours are on /metrics; see serving.metrics
)
@bentoml.asgi_app(app, path="/")
class Ptft:
    """Joint image-text embeddings and classification."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Refuse to start on a model that no worker could serve, in one line.

        In a process of its own, so that the supervisor does not keep a model in memory. BentoML
        starts workers in its own folder, so the model's path is made absolute here, where the
        working directory is still that of the shell that gave it.
        """
        if given := os.environ.get(MODEL, "").strip():
            os.environ[MODEL] = str(Path(given).expanduser().absolute())
        here = Path(__file__).resolve().parent.parent
        done = subprocess.run(
            [sys.executable, "-m", "serving.model"], cwd=here, capture_output=True, text=True
        )
        if done.returncode:
            message = done.stderr.strip() or f"the check was ended by {done.returncode}"
            raise SystemExit(f"ptft: {message}")  # an error would come under BentoML's traceback

    def __is_ready__(self) -> bool:
        return bool(app.state.serving.ready)

    def __is_alive__(self) -> bool:
        return bool(app.state.serving.alive)
