"""``python -m serving [--host HOST] [--port PORT]``: the service on uvicorn, without BentoML.

This process listens, starts a worker, starts it again when it ends unasked, says 503 while there is
none (``serving.door``), and passes SIGTERM on. It imports nothing of the model's.
"""

import argparse
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from ptft.errors import PtftError
from serving.door import Door
from serving.first_run import UNSERVABLE, FirstRuns
from serving.keys import check_keys
from serving.logs import write_logs
from serving.settings import read_settings

__all__ = ["main"]

logger = logging.getLogger("bentoml.ptft")

_SHORT_S = 5.0  # a worker that lived no longer is not started again at once
_PAUSE_S = 2.0
_BACKLOG = 2048


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving", description="Serve a model folder.")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=3000, help="(default: %(default)s)")
    asked = parser.parse_args(arguments)
    try:
        settings = read_settings()
        check_keys(settings)
        family = socket.AF_INET6 if ":" in asked.host else socket.AF_INET
        listening = socket.create_server((asked.host, asked.port), family=family, backlog=_BACKLOG)
    except PtftError as error:
        sys.stderr.write(f"ptft: {error}\n")
        return error.exit_code
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"ptft: --host {asked.host} --port {asked.port}: {error}\n")
        return 1
    Door(settings.hold_s).open(listening)
    write_logs(settings.log_format)
    logger.info("listening on http://%s:%d", asked.host, listening.getsockname()[1])
    return _Supervisor(listening).run()


class _Supervisor:
    """Keeps one worker running."""

    def __init__(self, listening: socket.socket) -> None:
        self._fd = listening.fileno()
        self._worker: subprocess.Popen[bytes] | None = None
        self._ending = False
        self._first_runs = FirstRuns()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)

    def run(self) -> int:
        """Until it is asked to end, or the model cannot be served."""
        command = [sys.executable, "-m", "serving.worker", "--fd", str(self._fd)]
        while not self._ending:
            started = time.monotonic()
            # a session of its own, so that Ctrl-C reaches it once: from here
            self._worker = subprocess.Popen(
                command, pass_fds=(self._fd,), start_new_session=True, env=_environment()
            )
            if self._ending:  # the signal came while it was being started
                self._worker.terminate()
            code = self._worker.wait()
            if self._ending:
                break
            if code == UNSERVABLE:
                return 1
            if why := self._first_runs.why(code):
                logger.error("the model cannot be served: %s", why)
                return 1
            logger.warning("the worker ended (%d); starting another", code)
            if time.monotonic() - started < _SHORT_S:
                time.sleep(_PAUSE_S)
        return 0

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True
        if self._worker is not None:
            with contextlib.suppress(ProcessLookupError):
                self._worker.terminate()


def _environment() -> dict[str, str]:
    """The worker imports what this process imported, wherever that was started."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths}


if __name__ == "__main__":
    sys.exit(main())
