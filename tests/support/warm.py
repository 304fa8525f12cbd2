"""``ptft``, or another module, in processes that start at once: forked from one that has imported
everything.

What runs in a child is the command itself, with its signals, its exit code and its output; only the
seconds of importing torch and open_clip are shared.
"""

import contextlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass
class Child:
    """A running command."""

    warm: "Warm"
    pid: int
    out: Path
    err: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it runs."""
        if self.code is None:
            self.code = self.warm.ask(poll=self.pid)
        return self.code

    def wait(self) -> int:
        """Its exit code once it ends."""
        if self.code is None:
            self.code = self.warm.ask(wait=self.pid)
        assert self.code is not None
        return self.code

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait_until(self, condition: Callable[[], object], *, interval: float = 0.002) -> bool:
        """Whether the condition came true before the command ended."""
        while not condition():
            if self.poll() is not None:
                return bool(condition())
            time.sleep(interval)
        return True


class Warm:
    """The process that forks; leave it before the folder for the output goes away.

    Args:
        folder: for the output of the commands.
        environment: of the commands; absent: this process's.
        apart: takes the command that starts it to another, such as ``tests.support.alone``'s.
        light: it imports the command line alone, and nothing heavy such as torch.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        apart: Callable[[list[str]], list[str]] = list,
        light: bool = False,
    ) -> None:
        self.folder = folder
        self.light = light
        self.environment = environment
        self.apart = apart
        self.count = 0
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.support.warm", *["light"] * self.light]
        self.process = subprocess.Popen(
            self.apart(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        assert self.ask(ready=True) is True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.communicate()  # its input ends, and so does it

    def ptft(
        self,
        *arguments: object,
        cwd: Path | None = None,
        largest_file: int | None = None,
        order: Path | None = None,
    ) -> Child:
        """Start ``ptft`` with these arguments.

        Args:
            arguments: of the command.
            cwd: the folder to run it in; absent: this process's.
            largest_file: in bytes; beyond it a write fails, as on a full disk.
            order: a file to which each batch's position and a digest of its names, pixels and
                tokens are appended.
        """
        return self._start(
            "ptft",
            arguments,
            cwd=str(cwd or Path.cwd()),
            largest_file=largest_file,
            order=None if order is None else str(order),
        )

    def module(self, name: str, *arguments: object, cwd: Path | None = None) -> Child:
        """Start ``python -m name`` with these arguments, in this folder or the current one."""
        place = str(cwd or Path.cwd())
        return self._start(name, arguments, cwd=place, largest_file=None, order=None)

    def _start(self, module: str, arguments: Sequence[object], **more: Any) -> Child:
        self.count += 1
        out, err = (self.folder / f"{self.count}.{end}" for end in ("out", "err"))
        pid = self.ask(
            argv=[str(argument) for argument in arguments],
            out=str(out),
            err=str(err),
            module=module,
            **more,
        )
        return Child(self, pid, out, err)

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def serve(light: bool) -> None:
    """Answer requests, one a line, until there are no more."""
    if light:
        import ptft.cli.main
        import ptft.recipe  # noqa: F401 (for the children)
    else:
        import_all()
    for line in sys.stdin:
        request = json.loads(line)
        if "argv" in request:
            answer: Any = fork(request)
        elif "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = True
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def import_all() -> None:
    from ptft.compat import import_open_clip, import_timm, prepare_torchvision

    prepare_torchvision()
    import_open_clip()
    import_timm()
    import ptft.cli.main
    import ptft.train  # noqa: F401 (for the children)

    if place := os.environ.get("TRACED"):
        import torch

        from tests.support.traced import remember

        torch.onnx.export = remember(torch.onnx.export, Path(place))


def fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        for target, name in ((1, request["out"]), (2, request["err"])):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = run(request)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(request: dict[str, Any]) -> int:
    from ptft.cli.main import main

    if request["largest_file"] is not None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"], hard))
    if request["order"] is not None:
        record_order(Path(request["order"]))
    os.chdir(request["cwd"])
    sys.argv = [request["module"], *request["argv"]]
    try:
        if request["module"] == "ptft":
            main()
        else:
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def record_order(path: Path) -> None:
    """Write down what the loop is given, on its way there."""
    import zlib

    from ptft.train import loop as steps

    plain = steps.batches

    def batches(*args: Any, start: int, size: int, **kwargs: Any) -> Any:
        for number, batch in enumerate(plain(*args, start=start, size=size, **kwargs)):
            digest = zlib.crc32("\n".join(batch.names).encode())
            digest = zlib.crc32(batch.images.numpy().tobytes(), digest)
            if batch.tokens is not None:
                digest = zlib.crc32(batch.tokens.numpy().tobytes(), digest)
            with path.open("a") as stream:
                stream.write(f"{start + number * size} {digest}\n")
            yield batch

    steps.batches = batches  # type: ignore[assignment]


def read_order(path: Path, *others: Path) -> dict[int, set[int]]:
    """Position -> digests that were written for it: one, if every replay was the same."""
    found: dict[int, set[int]] = {}
    for one in (path, *others):
        for line in one.read_text().splitlines():
            position, _, digest = line.partition(" ")
            if digest:
                found.setdefault(int(position), set()).add(int(digest))
    return found


def logged_steps(log: Path) -> Sequence[int]:
    """Steps of a run's log, without a line that is being written."""
    if not log.is_file():
        return []
    lines = log.read_text().split("\n")[:-1]
    return [json.loads(line)["step"] for line in lines]


if __name__ == "__main__":
    serve(light=sys.argv[1:] == ["light"])
