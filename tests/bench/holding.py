"""What holding costs somebody whose artefacts are honest: opened with it and without it, in CPU-s.

A model folder (ViT-B-32 with random weights), the service's model, a run as `ptft evaluate` opens
it, and sets of data that are opened and read once: a parquet of 1,000 row groups and 50 columns, a
CSV, a tar. Each is opened by a process of its own, with the checks and without them in turn; what
counts is all that the process took, its imports and children included. Without them: by the stated
way to say no (``verify=False``), or, where there is none, with the checks taken out.

``again``: what was found right before and has not changed is not read again. ``first``: nothing is
remembered, and each byte is hashed once; that has no bar of its own: it is what reading the bytes
once costs. Sets of data are opened for the first time by every process, with the checks and without
them: an index or a footer that another had cached would be read by neither.

``start``: the whole of a service's worker, from its first import to the first time that it says
ready. ``first``: on a fresh disk, with nothing remembered; ``again``: as any start after it.
``without``: no byte is hashed, no graph and no tokenizer looked at, no long text tried, no bound
set. ``hashed``: each byte is, and nothing else is held, which is what every start of the service
did before others' files were held to more. Against this all else has the bar, the first time and
again; what the hash costs is said in seconds of a CPU a GB.
"""

import csv
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow
import pyarrow.parquet
from platformdirs import user_cache_path

from tests.bench._honest_files import prepare

ROUNDS = {"model": 9, "service": 21, "run": 9, "parquet": 9, "csv": 21, "tar": 21}
"""More of what takes less: what else the machine does is a larger share of it."""
MOST = 1.05  # times the CPU-seconds without
CASES = {"model": "model", "service": "model", "run": "run", "parquet": "a.parquet",
         "csv": "a.csv", "tar": "a.tar"}  # fmt: skip
REMEMBERED = ("model", "service", "run")  # these have a first time
SMOKE = ("run", "parquet")

STARTS = 5  # of each arm; a start takes seconds
READY_CPU_S = 5.0  # of a service on ViT-B-32, the first time

BARS = {
    f"{case}, {what} of {ROUNDS[case]}, times": ("<=", MOST)
    for case in CASES
    for what in ("median", "least")
} | {
    f"start, first by hashed, median of {STARTS}, times": ("<=", MOST),
    f"start, again by hashed, median of {STARTS}, times": ("<=", MOST),
    f"start, first, least of {STARTS}, CPU-s": ("<=", READY_CPU_S),
    "start, resident beyond 1.2 of the files, MB": ("<=", 250.0),
}


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    if smoke:
        with tempfile.TemporaryDirectory() as home:
            return _measure(prepare(Path(home), small=True), dict.fromkeys(SMOKE, 1))
    place = user_cache_path("ptft") / "bench" / "holding"
    # apart: what a process has taken, a child's ru_maxrss begins with
    subprocess.run([sys.executable, "-m", __name__, "prepare", "-", place], check=True)
    return _measure(place, ROUNDS) | _starts(place / "model")


def _measure(home: Path, rounds: Mapping[str, int]) -> dict[str, float]:
    figures: dict[str, float] = {}
    print(f"{'CPU-seconds':16}{'without':>10}{'again':>10}{'times':>8}{'first':>10}{'times':>8}")
    with tempfile.TemporaryDirectory() as cache:
        for case, times in rounds.items():
            figures |= _figures(case, _in_turn(case, home / CASES[case], cache, times))
    return figures


def _starts(path: Path) -> dict[str, float]:
    """CPU-seconds of a worker on a model folder until it is ready."""
    seconds: dict[str, list[float]] = {"without": [], "hashed": [], "first": [], "again": []}
    resident = 0.0
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as kept:
            for arm, taken in seconds.items():
                cache = kept if arm in ("first", "again") else tempfile.mkdtemp(dir=kept)
                used = _run("start", arm, path, cache)
                taken.append(used.ru_utime + used.ru_stime)
                largest = used.ru_maxrss * 1024 / 1e6
                resident = max(resident, largest) if arm == "first" else resident
    middle = {arm: median(taken) for arm, taken in seconds.items()}
    size = sum(each["size"] for each in _read_by_service(path).values()) / 1e9
    figures = {
        f"start, first by hashed, median of {STARTS}, times": _by(seconds, "first", "hashed"),
        f"start, again by hashed, median of {STARTS}, times": _by(seconds, "again", "hashed"),
        f"start, first by without, median of {STARTS}, times": _by(seconds, "first", "without"),
        f"start, first, least of {STARTS}, CPU-s": min(seconds["first"]),
        "start, hashing a GB, CPU-s": (middle["hashed"] - middle["without"]) / size,
        "start, GB": size,
        "start, resident beyond 1.2 of the files, MB": resident - 1.2 * 1e3 * size,
    }
    for arm, taken in seconds.items():
        print(f"start, {arm:9}{min(taken):10.2f} least{middle[arm]:10.2f} median CPU-s")
    return {name: round(value, 3) for name, value in figures.items()}


def _read_by_service(path: Path) -> dict[str, Any]:
    from ptft.artifact import read_model_info
    from serving.model import read_files
    from serving.settings import Settings

    return read_files(Settings(model=path), read_model_info(path))


def _in_turn(case: str, path: Path, cache: str, rounds: int) -> dict[str, list[float]]:
    """CPU-seconds of each arm, round after round."""
    if case in REMEMBERED:
        _open(case, "again", path, cache)  # what it remembers from here on
    seconds: dict[str, list[float]] = {"without": [], "again": []}
    if case in REMEMBERED:
        seconds["first"] = []
    for _ in range(rounds):
        for arm, taken in seconds.items():
            shared = case in REMEMBERED and arm != "first"
            kept = cache if shared else tempfile.mkdtemp(dir=cache)
            taken.append(_open(case, arm, path, kept))
    return seconds


def _figures(case: str, seconds: dict[str, list[float]]) -> dict[str, float]:
    """Print the two lines of a case."""
    figures = {}
    for what, of in (("median", median), ("least", min)):
        line = f"{case + ', ' + what:16}{of(seconds['without']):10.2f}"
        for arm in ("again", "first"):
            if arm in seconds:
                times = _by(seconds, arm, "without")
                if what == "least":
                    times = min(seconds[arm]) / min(seconds["without"])
                when = ", the first time" if arm == "first" else f" of {ROUNDS[case]}"
                figures[f"{case}, {what}{when}, times"] = round(times, 3)
                line += f"{of(seconds[arm]):10.2f}{times:8.3f}"
        print(line, flush=True)
    return figures


def _by(seconds: dict[str, list[float]], arm: str, other: str) -> float:
    """Of one arm to another in the same round, the median over the rounds."""
    return median(a / b for a, b in zip(seconds[arm], seconds[other], strict=True))


def _open(case: str, arm: str, path: Path, cache: str) -> float:
    """CPU-seconds of a process that opens it, and of those that it started."""
    used = _run(case, arm, path, cache)
    return used.ru_utime + used.ru_stime


def _run(case: str, arm: str, path: Path, cache: str) -> resource.struct_rusage:
    command = [sys.executable, "-m", "tests.bench.holding", case, arm, str(path)]
    environment = {**os.environ, "XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -signal.SIGTERM):  # by which a worker ends
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return used


# What a process of its own does


def _load(path: Path, held: bool) -> None:
    from ptft.model import load_model

    load_model(path, verify=held)


def _serve(path: Path, held: bool) -> None:
    from serving.model import load_model
    from serving.settings import Settings

    if held:
        load_model(Settings(model=path))
        return
    from ptft.artifact import read_model_info
    from ptft.onnx.golden import check_golden
    from ptft.onnx.model import OnnxModel

    check_golden(OnnxModel(path, read_model_info(path), "fp32", 1), path)


def _start(path: Path, arm: str) -> None:
    """A worker, until it is ready."""
    os.environ |= {"PTFT_MODEL": str(path), "PTFT_THREADS": "1", "PTFT_DRAIN_S": "0"}
    from serving import encoder, first_run, state, worker

    first_run.FirstRuns()
    if arm in ("without", "hashed"):
        from ptft.artifact import read_model_info
        from ptft.files.digests import HeldFiles
        from ptft.onnx import model
        from ptft.preprocess import texts

        parts: tuple[Any, ...] = (encoder, model, state, texts, first_run.Worker)
        parts[0].longest_row = lambda tokenizer: tokenizer(["word " * 100])[0]
        parts[1].check_onnx_file = lambda path, recorded: None
        if arm == "without":
            parts[2].verify_model = lambda settings: (
                read_model_info(settings.model),
                HeldFiles({}),
            )
        parts[3].check_tokenizer = lambda text, where: json.loads(text)
        parts[4].begin = lambda *arguments: nullcontext()
    listening = socket.create_server(("127.0.0.1", 0))

    def watch() -> None:
        place = listening.getsockname()
        while True:
            time.sleep(0.2)
            with socket.create_connection(place) as ask:
                ask.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                if b" 200 " in ask.recv(64):
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

    threading.Thread(target=watch, daemon=True).start()
    sys.argv = ["worker", "--fd", str(os.dup(listening.fileno()))]
    worker.main()


def _evaluate(path: Path, held: bool) -> None:
    from ptft.recipe import check_evaluations, load_evaluation
    from ptft.runs.folder import read_run

    recipe = load_evaluation(str(path / "recipe.yaml"), (), model=str(path), foreign=True)
    check_evaluations(recipe)
    read_run(path)
    _load(path, held)


def _read_parquet(path: Path, held: bool) -> None:
    if not held:
        from ptft.data.parquet import file as parquet_file
        from ptft.data.parquet.footer import Chunk, Group
        from ptft.data.parquet.layout import Layout

        class Told(Group):
            """A group as pyarrow tells of it."""

            def chunk(self, number: int) -> Chunk:
                one = self.about.column(number)  # type: ignore[attr-defined]
                sizes = (one.total_uncompressed_size, one.total_compressed_size)
                return Chunk(self.paths[number], (), one.num_values, *sizes, one.data_page_offset)

        def groups(path: Path) -> list[Group]:
            about = pyarrow.parquet.read_metadata(path)
            names = [about.schema.column(n).path.split(".") for n in range(about.num_columns)]
            paths = tuple(map(tuple, names))
            found: list[Group] = []
            for number in range(about.num_row_groups):
                group = about.row_group(number)
                found.append(Told(group.num_rows, paths))
                vars(found[-1])["about"] = group
            return found

        parts: Any = parquet_file
        parts.read_footer = groups
        layout: Any = Layout
        layout.check_same = lambda *arguments: None
        parts._check_group = lambda *arguments: (None, 0)
        for check in ("_check_unpacked", "check_indices"):
            setattr(parts, check, lambda *arguments: None)
    _read_texts(path)


def _read_csv(path: Path, held: bool) -> None:
    if not held:
        from ptft.data.sources import plain_rows

        def rows(path: Path) -> list[dict[str, Any]]:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                return [
                    {name: plain_rows.read_cell(value) for name, value in row.items()}
                    for row in csv.DictReader(stream)
                ]

        plain_rows.READ[".csv"] = rows
    _read_texts(path)


def _read_texts(path: Path) -> None:
    from ptft.data.open import open_split
    from ptft.recipe.data import TableData

    samples = open_split(TableData(train=str(path), image=None, captions=["{t0}"]), "train")
    for index in range(len(samples)):
        samples.captions(index)


def _read_tar(path: Path, held: bool) -> None:
    from ptft.data.open import open_split
    from ptft.data.tar import index as tar_index
    from ptft.recipe.data import ShardsData

    if not held:
        parts: Any = tar_index
        parts._check_header = lambda *arguments: None
        parts._number = lambda path, header, place: int(header[124:136].strip(b" \0") or b"0", 8)
    samples = open_split(ShardsData(train=str(path), captions=["{txt}"]), "train")
    for index in range(len(samples)):
        samples[index]


_OPEN: dict[str, Callable[[Path, bool], None]] = {
    "model": _load,
    "service": _serve,
    "run": _evaluate,
    "parquet": _read_parquet,
    "csv": _read_csv,
    "tar": _read_tar,
}


if __name__ == "__main__":
    case, arm, path = sys.argv[1:]
    if case == "prepare":
        prepare(Path(path), small=False)
    elif case == "start":
        _start(Path(path), arm)
    else:
        _OPEN[case](Path(path), arm != "without")
