"""What a worker runs for the first time, it runs within bounds; and what that ends is said once.

A model folder may be a stranger's. A worker of a supervisor's is a process of its own, so it bounds
its memory, its CPU and its clock while it loads the model, holds it against its golden inputs and
measures it, and lifts that when it may serve: nothing runs twice. What ends it on the way (a bound,
a fault of a library) ends nobody else, and the supervisor does not start another for ever. The two
talk through a file of the supervisor's. A process that is more than a worker, or whose provider
maps more addresses than there are bytes, has the model tried in another one first.
"""

import atexit
import json
import os
import signal
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ptft.artifact import ModelInfo
from ptft.errors import ArtifactError
from ptft.onnx.limits import OWN_SIGNALS, limits_of
from ptft.onnx.trial import try_model
from serving.settings import MODEL, Settings

__all__ = ["UNSERVABLE", "FirstRuns", "Worker", "check_there"]

UNSERVABLE = 3
"""Exit code of a worker whose model cannot be served; it has said why."""

_VARIABLE = "_PTFT_FIRST_RUN"  # where the file lies; the supervisor sets it for its workers
_MOST = 3  # workers in a row that end on the way: one or two may have been ended by somebody


def check_there(settings: Settings) -> None:
    """Whether there is a folder to serve, which a supervisor sees without opening it.

    Raises:
        ArtifactError: there is none.
    """
    if not settings.model.is_dir():
        raise ArtifactError(f"{MODEL}={settings.model}: no such folder")


class FirstRuns:
    """Of a supervisor; to be made before it starts a worker, which inherits its environment.

    Args:
        ends_by_signal: it does not see how a worker ends: one that cannot serve its model tells it
            by SIGTERM to end, and its exit code is 1 then.
    """

    def __init__(self, *, ends_by_signal: bool = False) -> None:
        descriptor, path = tempfile.mkstemp(prefix="ptft-first-run-")
        os.close(descriptor)
        self._path = Path(path)
        _write(self._path, {"supervisor": os.getpid() if ends_by_signal else 0})
        os.environ[_VARIABLE] = path
        atexit.register(self._end)

    def why(self, code: int) -> str:
        """Why no other worker should be started after one that ended so; empty if one should."""
        said = _read(self._path)
        name = signal.Signals(-code).name if code < 0 else str(code)
        if said.get("running") and name in OWN_SIGNALS:
            return _ended(f"by {name}", said)
        return ""

    def _end(self) -> None:
        failed = _read(self._path).get("unservable")
        self._path.unlink(missing_ok=True)
        if failed:  # the last that runs here: it was registered before all others
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)


class Worker:
    """The worker's side. Without a supervisor that knows of it nothing is noted down."""

    def __init__(self) -> None:
        path = os.environ.get(_VARIABLE, "")
        self._path = Path(path) if path else None

    def begin(self, info: ModelInfo, settings: Settings) -> AbstractContextManager[None]:
        """Have a model tried elsewhere, or bounds in which to run it here.

        Raises:
            ArtifactError: it does not come through; or workers before this one did not.
        """
        from serving.model import largest_batch, runs_on_cpu

        if self._path is None or not runs_on_cpu(settings):
            batch = largest_batch(settings)
            try_model(settings.model, info, settings.precision, batch=batch)
            return nullcontext()
        said = _read(self._path)
        limits = limits_of(info)
        count = int(said.get("running", 0))
        if count >= _MOST:
            raise ArtifactError(f"{settings.model}: {_ended(f'{count} times', said)}")
        _write(self._path, {**said, "running": count + 1, "limits": str(limits)})
        return limits.held(settings.model)

    def came_through(self) -> None:
        """The model may serve."""
        if self._path is not None:
            _write(self._path, {**_read(self._path), "running": 0})

    def give_up(self) -> None:
        """The model cannot be served: this process is about to end."""
        if self._path is None:
            return
        said = {**_read(self._path), "unservable": True}
        _write(self._path, said)
        if said.get("supervisor") == os.getppid():
            with suppress(ProcessLookupError):
                os.kill(os.getppid(), signal.SIGTERM)


def _ended(how: str, said: dict[str, Any]) -> str:
    return f"running the model once ended the worker {how}; {said.get('limits', '')}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return {}


def _write(path: Path, values: dict[str, Any]) -> None:
    with suppress(OSError):
        path.write_text(json.dumps(values))
