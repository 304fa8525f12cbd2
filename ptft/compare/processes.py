"""Jobs of a comparison, in a process each, which does not outlive the one that started it."""

import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import connection
from types import TracebackType
from typing import Any, Self

from ptft.errors import PtftError, TrainingError
from ptft.forking import of_the_group_no_more, server_context

__all__ = ["Processes"]


@dataclass(frozen=True)
class _Running:
    process: Any  # of multiprocessing's context
    answers: connection.Connection


class Processes:
    """Processes by a job's name; on leaving, those that still run are killed.

    They are forked from one that has imported what a task needs.
    """

    def __init__(self) -> None:
        self._context = server_context("ptft.compare.preload")
        self._running: dict[str, _Running] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for job in list(self._running):
            self.kill(job)

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, job: str) -> bool:
        return job in self._running

    @property
    def jobs(self) -> list[str]:
        """Names of those that run."""
        return list(self._running)

    def start(self, job: str, work: Callable[..., None], *arguments: Any) -> None:
        """Call ``work`` in a process."""
        answers, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(sender, work, arguments), name=job)
        process.start()
        sender.close()
        self._running[job] = _Running(process, answers)

    def kill(self, job: str) -> None:
        """End a process at once, whatever it is at."""
        running = self._running.pop(job)
        running.process.kill()
        running.process.join()
        running.answers.close()

    def ended(self, seconds: float) -> Mapping[str, Exception | None]:
        """The jobs that ended, waited for so long at most; with the error of one that failed."""
        waited = {running.process.sentinel: job for job, running in self._running.items()}
        found: dict[str, Exception | None] = {}
        for sentinel in connection.wait(list(waited), seconds):
            job = waited[sentinel]
            running = self._running.pop(job)
            running.process.join()
            found[job] = _error(job, running)
            running.answers.close()
        return found


def _error(job: str, running: _Running) -> Exception | None:
    try:
        if running.answers.poll():
            answer: Exception | None = running.answers.recv()
            return answer
    except (EOFError, OSError):  # it was killed as it answered
        pass
    code = running.process.exitcode
    how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    return TrainingError(
        f"{job}: its process {how}; the system does so for want of memory: fewer compare.jobs"
    )


def _work(
    answers: connection.Connection, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    of_the_group_no_more()
    error: Exception | None = None
    try:
        work(*arguments)
    except Exception as caught:
        error = caught
        if not isinstance(error, PtftError):
            error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, and where it is made
    except Exception:  # of a library; its text is what is told
        error = TrainingError(f"{type(error).__name__}: {error}")
    answers.send(error)
