"""A worker runs a model for the first time within bounds, in place, and what ends it is said."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from ptft.artifact import FolderFiles, ModelInfo
from ptft.errors import ArtifactError
from serving import first_run
from serving.first_run import FirstRuns, Worker
from serving.settings import Settings
from tests.serving.server import REPO, environment, free_port
from tests.support.graphs import put, slow


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> FirstRuns:
    """A supervisor's side, whose environment ends with the test."""
    monkeypatch.setattr("atexit.register", lambda *_: None)
    monkeypatch.setenv("_PTFT_FIRST_RUN", "")  # what it says there is gone with the test
    return FirstRuns()


def served(home: Path, model: Path, changed: str) -> subprocess.CompletedProcess[str]:
    """``python -m serving`` to its end, in processes that begin with this; none outlives it."""
    (home / "sitecustomize.py").write_text(changed)
    paths = os.pathsep.join([str(home), str(REPO)])
    variables = {"PTFT_MODEL": str(model), "PYTHONPATH": paths, "PTFT_THREADS": "1"}
    command = [sys.executable, "-m", "serving", "--port", str(free_port())]
    with subprocess.Popen(
        command,
        cwd=home,
        env=environment(home, variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, errors = process.communicate(timeout=240)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, said, errors)


def test_a_model_that_takes_too_long_ends_the_service_in_one_line(
    folder: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(folder, tmp_path / "model"))
    put(model, FolderFiles.VISION_ONNX, slow(model))
    done = served(tmp_path, model, "import ptft.onnx.limits as l\nl._CPU, l.PATIENCE = 2, 100\n")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "cannot be served" in line]
    assert "running the model once ended the worker by SIGXCPU; allowed: " in line
    assert "Traceback" not in done.stderr


def test_a_model_that_takes_too_much_memory_ends_the_service_in_one_line(
    folder: Path, tmp_path: Path
) -> None:
    done = served(tmp_path, folder, "import ptft.onnx.limits as l\nl._MEMORY = 1 << 22\n")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "cannot be served" in line]
    assert "memory; allowed: " in line or "onnxruntime cannot" in line
    assert "Traceback" not in done.stderr


def test_a_fault_of_a_library_is_the_models(runs: FirstRuns, folder: Path, info: ModelInfo) -> None:
    worker = Worker()
    assert runs.why(-signal.SIGSEGV) == ""  # nothing was being run for the first time
    worker.begin(info, Settings(model=folder))
    assert "ended the worker by SIGSEGV; allowed: 12" in runs.why(-signal.SIGSEGV)
    assert runs.why(-signal.SIGKILL) == runs.why(1) == ""  # may be anybody's doing
    worker.came_through()
    assert runs.why(-signal.SIGSEGV) == ""


def test_workers_that_end_one_after_the_other_are_the_models(
    runs: FirstRuns, folder: Path, info: ModelInfo
) -> None:
    settings = Settings(model=folder)
    for _ in range(3):
        Worker().begin(info, settings)
    with pytest.raises(ArtifactError, match=r"ended the worker 3 times; allowed: 12. s of a CPU"):
        Worker().begin(info, settings)
    Worker().came_through()
    Worker().begin(info, settings)


def test_a_process_that_is_more_than_a_worker_has_it_tried_elsewhere(
    folder: Path, info: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    monkeypatch.setattr(first_run, "try_model", lambda folder, *_, **__: tried.append(folder))
    with ExitStack() as stack:
        stack.enter_context(Worker().begin(info, Settings(model=folder)))
    assert tried == [folder]
