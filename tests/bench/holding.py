"""What holding costs somebody whose artefacts are honest: opened with it and without it, in CPU-s.

A model folder (ViT-B-32 with random weights), the service's model, a run as `ptft evaluate` opens
it, and sets of data that are opened and read once: a parquet of 1,000 row groups and 50 columns, a
CSV, a tar. Each is opened by a process of its own, with the checks and without them in turn; what
counts is all that the process took, its imports and children included. Without them: by the stated
way to say no (``verify=False``), or, where there is none, with the checks taken out.

``again``: what was found right before and has not changed is not read again. ``first``: nothing is
remembered; each byte is hashed once, and the service runs the model once in a process with limits.
That has no bar: it is what reading the bytes once costs.
"""

import csv
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from platformdirs import user_cache_path

ROUNDS = 9
NAME = "ViT-B-32"
GROUPS, COLUMNS, ROWS = 1000, 50, 1000  # of the parquet
FEW = 20_000  # rows of the CSV; a tenth of it samples of the tar
MOST = 1.05  # times the CPU-seconds without
CASES = {"model": "model", "service": "model", "run": "run", "parquet": "a.parquet",
         "csv": "a.csv", "tar": "a.tar"}  # fmt: skip
REMEMBERED = ("model", "service", "run")  # these have a first time
SMOKE = ("run", "parquet")

BARS = {
    f"{case}, {what} of {ROUNDS}, times": ("<=", MOST)
    for case in CASES
    for what in ("median", "least")
}


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    if smoke:
        with tempfile.TemporaryDirectory() as home:
            return _measure(_prepare(Path(home), small=True), SMOKE, rounds=1)
    place = user_cache_path("ptft") / "bench" / "holding"
    return _measure(_prepare(place, small=False), CASES, rounds=ROUNDS)


def _measure(home: Path, cases: Collection[str], rounds: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    print(f"{'CPU-seconds':16}{'without':>10}{'again':>10}{'times':>8}{'first':>10}{'times':>8}")
    with tempfile.TemporaryDirectory() as cache:
        for case in cases:
            figures |= _figures(case, _in_turn(case, home / CASES[case], cache, rounds))
    return figures


def _in_turn(case: str, path: Path, cache: str, rounds: int) -> dict[str, list[float]]:
    """CPU-seconds of each arm, round after round."""
    _open(case, "again", path, cache)  # what it remembers from here on
    seconds: dict[str, list[float]] = {"without": [], "again": []}
    if case in REMEMBERED:
        seconds["first"] = []
    for _ in range(rounds):
        for arm, taken in seconds.items():
            kept = cache if arm != "first" else tempfile.mkdtemp(dir=cache)
            taken.append(_open(case, arm, path, kept))
    return seconds


def _figures(case: str, seconds: dict[str, list[float]]) -> dict[str, float]:
    """Print the two lines of a case."""
    figures = {}
    for what, of in (("median", median), ("least", min)):
        without, again = of(seconds["without"]), of(seconds["again"])
        figures[f"{case}, {what} of {ROUNDS}, times"] = round(again / without, 3)
        line = f"{case + ', ' + what:16}{without:10.2f}{again:10.2f}{again / without:8.3f}"
        if "first" in seconds:
            first = of(seconds["first"])
            figures[f"{case}, {what}, the first time, times"] = round(first / without, 3)
            line += f"{first:10.2f}{first / without:8.3f}"
        print(line, flush=True)
    return figures


def _open(case: str, arm: str, path: Path, cache: str) -> float:
    """CPU-seconds of a process that opens it, and of those that it started."""
    command = [sys.executable, "-m", "tests.bench.holding", case, arm, str(path)]
    environment = {**os.environ, "XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return used.ru_utime + used.ru_stime


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

        def groups(path: Path) -> list[Group]:
            about = pyarrow.parquet.read_metadata(path)
            names = [about.schema.column(n).path.split(".") for n in range(about.num_columns)]
            chunks = tuple(Chunk(tuple(name), (), 0, 0, 0, 0) for name in names)
            rows = (about.row_group(n).num_rows for n in range(about.num_row_groups))
            return [Group(count, chunks) for count in rows]

        parts: Any = parquet_file
        parts.read_footer = groups
        for check in ("_check_group", "_check_unpacked", "check_indices"):
            setattr(parts, check, lambda *arguments: None)
    _read_texts(path)


def _read_csv(path: Path, held: bool) -> None:
    if not held:
        from ptft.data.sources import plain_rows

        def rows(path: Path) -> list[dict[str, Any]]:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                return [
                    {name: plain_rows._cell(value) for name, value in row.items()}
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


# What is opened


def _prepare(home: Path, *, small: bool) -> Path:
    """The artefacts, made where they are not there."""
    if (home / "made").is_file():
        return home
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    _write_models(home, small)
    groups, rows, few = (10, 10, 100) if small else (GROUPS, ROWS, FEW)
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for number in range(COLUMNS):
        values = rng.integers(0, 10_000, groups * rows)
        texts = pyarrow.array([f"a caption of number {n} in column {number}" for n in values])
        columns[f"t{number}"] = (texts, values, values / 7)[min(number % 5, 2)]
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, home / "a.parquet", row_group_size=rows)
    with (home / "a.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [f"t{number}" for number in range(10)])
        writer.writeheader()
        writer.writerows(
            {f"t{n}": f"caption {row}, of {n}" for n in range(10)} for row in range(few)
        )
    with tarfile.open(home / "a.tar", "w") as tar:
        for number in range(few // 10):
            for kind, data in (("png", _picture(rng)), ("txt", f"caption {number}".encode())):
                about = tarfile.TarInfo(f"{number:06d}.{kind}")
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
    (home / "made").touch()
    return home


def _picture(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _write_models(home: Path, small: bool) -> None:
    """A run's folder with a model that was not trained, and the model folder of it, unless
    small."""
    from ptft.export import export_model
    from ptft.model import build_model
    from ptft.recipe import dump_recipe, load_recipe, recipe_digest
    from ptft.runs.finalise import save_final
    from ptft.runs.folder import RunRecord, RunStatus, write_run

    recipe = load_recipe("pretrain/scenes", [] if small else [f"model={{name: {NAME}}}"])
    model = build_model(recipe.model, None, recipe.objective, seed=0).eval()
    folder = home / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    record = RunRecord("bench", recipe_digest(recipe), RunStatus.FINISHED, "", {})
    save_final(folder, model, recipe, record)
    write_run(folder, record)
    if not small:
        export_model(folder, home / "model", precisions=("fp32",), measure=False)


if __name__ == "__main__":
    case, arm, path = sys.argv[1:]
    _OPEN[case](Path(path), arm != "without")
