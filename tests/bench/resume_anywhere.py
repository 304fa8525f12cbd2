"""One command on machines that come and go: kill -9 at random moments, then an empty disk.

``ptft train R --resume auto`` is killed at random moments of training and of uploads, and started
again: where its folder still lies; on an empty disk with ``run.mirror`` at a mounted path; and with
it on S3 (moto's server on loopback, behind a proxy that cuts, refuses and slows down a fifth of the
connections). Every run is held against one that nothing interrupts. Runs are forked from a process
that has imported torch, so the seconds to be back are those from the start of the command to its
first new step, without imports. Steps are lost that no checkpoint, or no whole copy, has yet.

Two nodes are two network namespaces with a link, under torchrun, whose ranks start from nothing:
a node is killed, the link is cut until both have given up, the world shrinks and grows again.
Slurm is a real one on this machine (``PTFT_TEST_SLURM=1``), Kubernetes the cluster of KUBECONFIG.

What the mirror costs a step: runs with it and without in turn, in one process on one thread, by the
CPU-seconds of the thread that trains, and by the time that it spends in the mirror.

A comparison by two workers in two network namespaces with one results folder, beside one process.
"""

import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from ptft.artifact import RunFiles
from ptft.recipe import dump_recipe
from ptft.recipe.load import parse_recipe
from tests.bench import _kubernetes, _nodes, _slurm
from tests.bench._row import HEAD, Row
from tests.bench._workers import compared
from tests.bench.resume import difference, write_recipe
from tests.clients.environments import cache_folder, find, make
from tests.support.faulty_proxy import FaultyProxy
from tests.support.warm import Child, Warm, logged_steps

KILLS = 30
SHARE = 0.2  # of connections to S3 that meet a fault
STEPS = 24
ROUNDS, EACH, EVERY = 6, 20, 10  # of the costs: runs of either kind, steps of one, to a checkpoint


def killed(
    warm: Warm, folder: Path, whole: Path, kills: int, *, mirror: str | None, seed: int
) -> Row:
    """Runs that are killed at random moments and started again, until there were so many kills."""
    draw, row, number = random.Random(seed), Row(), 0
    while row.kills < kills:
        number += 1
        name = f"run-{number}"
        address = None if mirror is None else f"{mirror}/{name}"
        place, reached = folder / "0", 0
        for life in range(1000):
            if address is not None:
                place = folder / f"{number}-{life}"  # an empty disk
            recipe = _recipe(place, name, address)
            child, started = warm.ptft("train", recipe, "--resume", "auto"), time.monotonic()
            log = place / name / RunFiles.LOG
            came_back = _after(child, log, started, draw, row, kills)
            row.lost += [] if not life else [max(0, reached - _went_on(child))]
            row.passed_over += child.err.read_text().count("going on from the")
            row.back += [came_back] if life and came_back else []
            if child.poll() == 0:
                break
            assert child.wait() == -signal.SIGKILL, child.err.read_text()[-2000:]
            reached = max([_went_on(child), *logged_steps(log)])
        row.max_dw = max(row.max_dw, difference(whole, place / name))
    return row


def _after(
    child: Child, log: Path, started: float, draw: random.Random, row: Row, kills: int
) -> float | None:
    """Wait for the first new step, then for a kill at a random moment or for the end; the seconds
    until that step, if one came."""
    before = len(logged_steps(log))
    new = child.wait_until(lambda: child.err.exists() and _new_steps(child, log) > 0)
    seconds = time.monotonic() - started if new else None
    if row.kills >= kills or before >= STEPS:
        child.wait()
        return seconds
    end = time.monotonic() + draw.expovariate(1 / 0.25)
    while time.monotonic() < end and child.poll() is None:
        time.sleep(0.002)
    if child.poll() is None:
        child.kill()
        row.kills += child.wait() == -signal.SIGKILL
    return seconds


def _went_on(child: Child) -> int:
    """The step that it went on from, as it said."""
    found = re.findall(r"goes on after step ([\d,]+)", child.err.read_text())
    return int(found[-1].replace(",", "")) if found else 0


def _new_steps(child: Child, log: Path) -> int:
    """Steps beyond the one that it went on from."""
    text = child.err.read_text()
    if " samples in " not in text:  # it has not begun to train
        return 0
    return len([step for step in logged_steps(log) if step > _went_on(child)])


def _recipe(folder: Path, name: str, mirror: str | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = write_recipe(folder, name, steps=STEPS, every=1)
    if mirror is not None:
        values = path.read_text()
        assert values.count("mirror: null") == 1
        path.write_text(values.replace("mirror: null", f"mirror: {mirror}"))
    return path


@contextmanager
def s3(*, smoke: bool) -> Iterator[tuple[dict[str, str], FaultyProxy] | None]:
    """A server of S3 behind a faulty proxy, and the environment that leads there; None where their
    environments are not made (a smoke run makes none)."""
    get = find if smoke else make
    moto, client = (get(name, cache_folder()) for name in ("moto", "s3fs"))
    if moto is None or client is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (packages,) = client.glob("lib/python*/site-packages")
    paths = [os.environ.get("PYTHONPATH", ""), str(packages)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "AWS_ACCESS_KEY_ID": "of-moto",
        "AWS_SECRET_ACCESS_KEY": "of-moto",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [moto / "bin" / "python", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, **quiet)
    try:
        _make_bucket(port)
        with FaultyProxy(port, share=SHARE) as proxy:
            environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.port}"
            yield environment, proxy
    finally:
        server.kill()
        server.wait()


def _make_bucket(port: int) -> None:
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    address = f"http://127.0.0.1:{port}/bucket"
    for _ in range(300):
        try:
            with urlopen(Request(address, method="PUT")):
                return
        except URLError:
            time.sleep(0.2)
    raise TimeoutError("moto's server does not answer")


def costs(folder: Path, *, smoke: bool) -> dict[str, float]:
    """What a mirror at a mounted path costs a step."""
    from ptft.runs.mirror import Mirror
    from ptft.speech import SILENT
    from ptft.train import loop, train

    rounds, each, every = (1, 2, 1) if smoke else (ROUNDS, EACH, EVERY)
    cpu: dict[bool, list[float]] = {False: [], True: []}
    wall: dict[bool, list[float]] = {False: [], True: []}
    inside = [0.0]
    plain, offer = loop.batches, Mirror.offer

    def timed(mirrored: bool) -> Any:
        def batches(*arguments: Any, **options: Any) -> Iterator[Any]:
            before = None
            for batch in plain(*arguments, **options):
                now = (time.thread_time(), time.perf_counter())
                if before is not None:
                    cpu[mirrored].append(now[0] - before[0])
                    wall[mirrored].append(now[1] - before[1])
                before = now
                yield batch

        return batches

    def timed_offer(self: Mirror) -> None:
        began = time.perf_counter()
        offer(self)
        inside[0] += time.perf_counter() - began

    try:
        Mirror.offer = timed_offer  # type: ignore[method-assign]
        for number in range(rounds):
            for mirrored in (False, True):
                name = f"cost-{number}-{int(mirrored)}"
                mirror = str(folder / "mirrors" / name) if mirrored else None
                loop.batches = timed(mirrored)  # type: ignore[assignment]
                train(_larger(folder, name, mirror, each, every), log=SILENT)
    finally:
        loop.batches, Mirror.offer = plain, offer  # type: ignore[method-assign]
    figures = {
        "mirror_cpu_ratio": sum(cpu[True]) / sum(cpu[False]),
        "mirror_share": inside[0] / sum(wall[True]),
        "mirror_wall_ratio": sum(wall[True]) / sum(wall[False]),
        "step_ms": 1000 * fmean(wall[False]),
    }
    size = sum(p.stat().st_size for p in (folder / "mirrors").rglob("*") if p.is_file())
    print(
        f"a step of {figures['step_ms']:.0f} ms, a checkpoint every {every}, {size / 1e6:,.0f} MB "
        f"in mirrors after all: CPU-s of the training thread with the mirror "
        f"{figures['mirror_cpu_ratio']:.4f} of those without (clock "
        f"{figures['mirror_wall_ratio']:.3f}); in the mirror {figures['mirror_share']:.3%} of time"
    )
    return {name: round(value, 5) for name, value in figures.items()}


def _larger(folder: Path, name: str, mirror: str | None, steps: int, every: int) -> Any:
    """Towers of 12 million weights: checkpoints of 150 MB."""
    path = write_recipe(folder, name, steps=steps, every=every)
    from ptft.recipe import load_recipe

    values: Mapping[str, Any] = load_recipe(path).model_dump(mode="json", by_alias=True)
    model = {
        "image": "vit_tiny_patch16_224",
        "image_size": 64,
        "text": {"width": 128, "layers": 4, "heads": 2, "context_length": 32},
        "embed_dim": 64,
    }
    optim = {**values["optim"], "global_batch": 32, "samples_seen": 32 * steps}
    run = {**values["run"], "mirror": mirror, "page": False}
    made = parse_recipe({**values, "model": model, "optim": optim, "run": run}, where=name)
    path.write_text(dump_recipe(made))
    return made


def run(*, smoke: bool = False) -> dict[str, float]:
    kills = 1 if smoke else KILLS
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        with Warm(folder) as warm:
            path = _recipe(folder, "whole", None)
            child = warm.ptft("train", path)
            assert child.wait() == 0, child.err.read_text()[-2000:]
            whole = folder / "whole"
            print(HEAD)
            rows = {
                "local": killed(warm, folder / "local", whole, kills, mirror=None, seed=1),
                "mounted": killed(
                    warm, folder / "disks", whole, kills, mirror=str(folder / "mounted"), seed=2
                ),
            }
            for place, row in rows.items():
                print(row.line({"local": "the same disk", "mounted": "a mounted path"}[place]))
        found = stack.enter_context(s3(smoke=smoke))
        if found is None:
            print("S3: no environments for moto and s3fs in a smoke run; the whole run makes them")
        else:
            environment, proxy = found
            (folder / "s3").mkdir()
            with Warm(folder / "s3", environment) as warm:
                rows["s3"] = killed(
                    warm, folder / "s3-disks", whole, kills, mirror="s3://bucket/runs", seed=3
                )
            print(rows["s3"].line(f"S3 ({proxy.faults} faults)"))
            figures["s3_faults"] = proxy.faults
        if smoke:
            print("two nodes: of the whole run alone, each start of torchrun takes seconds")
        else:
            found_rows, beside = _nodes.nodes_rows(folder / "nodes")
            for place, row in found_rows.items():
                print(row.line(_nodes.PLACES[place]))
            rows |= found_rows
            figures |= beside
            for place, name, found_row in (
                ("slurm", "Slurm, requeued", _slurm.slurm_row(folder / "slurm")),
                ("kubernetes", "Kubernetes, two pods", _kubernetes.kubernetes_row(folder / "k8s")),
            ):
                if found_row is not None:
                    print(found_row.line(name))
                    rows[place] = found_row
        for place, row in rows.items():
            figures |= row.figures(place)
        figures |= costs(folder, smoke=smoke)
        if smoke:
            print("a comparison by two workers: of the whole run alone, it takes minutes")
        else:
            figures |= compared(folder / "compared", smoke=smoke)
    return figures


BARS = {
    "local_kills": (">=", KILLS),
    "local_max_abs_dw": ("<=", 0.0),
    "mounted_kills": (">=", KILLS),
    "mounted_max_abs_dw": ("<=", 0.0),
    "mounted_passed_over": ("<=", 0),
    "s3_kills": (">=", KILLS),
    "s3_max_abs_dw": ("<=", 0.0),
    "s3_passed_over": ("<=", 0),
    **_nodes.BARS,
    **_slurm.BARS,
    **_kubernetes.BARS,
    "mirror_cpu_ratio": ("<=", 1.01),
    "mirror_share": ("<=", 0.01),
    "workers_time_ratio": ("<=", 1.1),
    "workers_different_cells": ("<=", 0),
    "workers_claimed_twice": ("<=", 0),
    "workers_claimed_after_kill": (">=", 1),
}
