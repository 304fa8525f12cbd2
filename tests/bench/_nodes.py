"""Two nodes of one run, as network namespaces with a link, and torchrun on each.

A launcher starts each node's command again, where it ended with another code than 0: a node is
killed with all its processes, its link is cut until both have given up, and with ``--nnodes 1:2``
the world shrinks to the node that is left and grows again.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles
from ptft.errors import LostRankError
from ptft.recipe import dump_recipe
from ptft.recipe.load import parse_recipe
from tests.bench._row import Row
from tests.bench.resume import difference, write_recipe
from tests.support.two_nodes import HEAD, Node, TwoNodes, UnmadeError, two_nodes
from tests.support.warm import logged_steps

__all__ = ["BARS", "PLACES", "STEPS", "longer_recipe", "nodes_rows"]

KILLS, CUTS = 4, 2
STEPS, BATCH, EVERY = 120, 64, 5
LOST_AFTER = 3  # seconds
_PORT = 29_500
_SECONDS = 300.0  # in which something happens, however busy the machine is


@dataclass
class Machine:
    """A node, and the launcher that it has.

    Attributes:
        unexpected: exit codes that are neither 0 nor 76 nor of a kill.
    """

    node: Node
    command: list[str]
    log: Path
    unexpected: list[int]
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        environment = {**os.environ, **self.node.environment(), "CUDA_VISIBLE_DEVICES": ""}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.node.command(*self.command), stdout=log, stderr=log, env=environment
            )

    def code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def kill(self) -> None:
        """All its processes at once, with no word to the other."""
        assert self.process is not None
        for pid in _below(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def go_on(self) -> bool:
        """Start it again where it has ended; whether it is finished."""
        code = self.code()
        if code:
            self.unexpected += [code] * (code != LostRankError.exit_code)
        if self.process is None or code:
            self.start()
        return code == 0


class Run:
    """A run in ``folder/name``; all that is left of it is killed in the end.

    Args:
        elastic: the world may be of one node; torchrun itself starts ranks again.
    """

    def __init__(self, folder: Path, name: str, nodes: TwoNodes, *, elastic: bool = False) -> None:
        self.folder = folder / name
        words = ["--nproc-per-node", "1"]
        if elastic:
            words += ["--nnodes", "1:2", "--max-restarts", "9"]
            words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HEAD}:{_PORT}"]
        else:
            words += ["--nnodes", "2", "--master-addr", HEAD, "--master-port", str(_PORT)]
        # a namespace has this machine's name, which says nothing of its address
        hosts = [
            ["--rdzv-conf", f"is_host={int(number == 0)}", "--local-addr", node.address]
            for number, node in enumerate(nodes)
        ]
        recipe = longer_recipe(folder, name)
        self.machines = [
            Machine(
                node,
                [sys.executable, "-m", "ptft.launch.ranks", *words]
                + (hosts[number] if elastic else ["--node-rank", str(number)])
                + ["-m", "ptft", "train", str(recipe), "--resume", "auto"],
                folder / f"{name}-{number}.log",
                [],
            )
            for number, node in enumerate(nodes)
        ]

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *raised: object) -> None:
        for machine in self.machines:
            if machine.code() is None and machine.process is not None:
                machine.kill()

    def until(self, condition: Callable[[], Any], *, again: bool = True) -> None:
        """Wait for a condition, or for the end of both where there is none; start again what ends.

        Raises:
            TimeoutError: neither came.
        """
        deadline = time.monotonic() + _SECONDS
        while not condition():
            if again and all([machine.go_on() for machine in self.machines]):  # noqa: C419 - each
                return
            if time.monotonic() > deadline:
                raise TimeoutError("\n".join(m.log.read_text()[-3000:] for m in self.machines))
            time.sleep(0.02)

    def finish(self) -> None:
        self.until(lambda: False)

    @property
    def reached(self) -> int:
        return max(logged_steps(self.folder / RunFiles.LOG), default=0)

    def said(self) -> str:
        return "".join(m.log.read_text() for m in self.machines if m.log.exists())

    def went_on(self) -> list[int]:
        """The steps that it went on from, as it said."""
        found = re.findall(r"goes on after step ([\d,]+)", self.said())
        return [int(one.replace(",", "")) for one in found]


def longer_recipe(folder: Path, name: str) -> Path:
    """A run of some seconds in ``folder/name``."""
    path = write_recipe(folder, name, steps=STEPS, every=EVERY)
    from ptft.recipe import load_recipe

    values: Any = load_recipe(path).model_dump(mode="json", by_alias=True)
    optim = {**values["optim"], "global_batch": BATCH, "samples_seen": BATCH * STEPS}
    run = {**values["run"], "page": False, "lost_after_seconds": LOST_AFTER}
    made = parse_recipe({**values, "optim": optim, "run": run}, where=name)
    path.write_text(dump_recipe(made))
    return path


def _below(pid: int) -> list[int]:
    """A process and all that it and they started."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _interrupted(
    run: Run, row: Row, times: int, interrupt: Callable[[Run, int], None], whole: Path
) -> list[int]:
    """Interrupt a run so often, at even steps, and finish it; exit codes that were not expected."""
    for number in range(times):
        step = (number + 1) * STEPS // (times + 1)
        run.until(lambda step=step: run.reached >= step)  # type: ignore[misc]
        starts = len(run.went_on())
        interrupt(run, number)
        reached, began = run.reached, time.monotonic()
        run.until(lambda starts=starts: len(run.went_on()) > starts)  # type: ignore[misc]
        before = run.went_on()[-1]
        run.until(lambda before=before: run.reached > before)  # type: ignore[misc]
        row.kills += 1
        row.lost.append(max(0, reached - before))
        row.back.append(time.monotonic() - began)
    run.finish()
    row.passed_over += run.said().count("going on from the")
    row.max_dw = max(row.max_dw, difference(whole, run.folder))
    return [code for machine in run.machines for code in machine.unexpected]


def _kill(run: Run, number: int) -> None:
    run.machines[number % 2].kill()


def _cut(nodes: TwoNodes) -> Callable[[Run, int], None]:
    def cut(run: Run, number: int) -> None:
        nodes.link("down")
        try:  # the launchers wait as long, as they would for machines
            run.until(lambda: all(m.code() is not None for m in run.machines), again=False)
        finally:
            nodes.link("up")

    return cut


def _elastic(run: Run, row: Row, whole: Path) -> list[int]:
    """The second node dies, the first goes on alone, the second comes back: the sizes of the
    world, as the run said."""
    first, second = run.machines
    run.until(lambda: run.reached >= STEPS // 4)
    second.kill()
    reached, began = run.reached, time.monotonic()
    run.until(run.went_on, again=False)
    before = run.went_on()[-1]
    run.until(lambda: run.reached > before, again=False)
    row.kills += 1
    row.lost.append(max(0, reached - before))
    row.back.append(time.monotonic() - began)
    second.start()
    run.until(lambda: first.code() is not None, again=False)
    assert first.code() == 0, first.log.read_text()[-3000:]
    row.passed_over += run.said().count("going on from the")
    row.max_dw = difference(whole, run.folder)
    starts = re.findall(r"samples in fp32|on \d ranks", first.log.read_text())
    sizes: list[int] = []
    for start in starts:
        if start.startswith("on "):
            sizes[-1] = int(start.split()[1])
        else:
            sizes.append(1)
    return sizes


def nodes_rows(folder: Path) -> tuple[dict[str, Row], dict[str, float]]:
    """The rows by their places, and what is beside them; none where there can be no namespaces."""
    folder.mkdir()
    rows = {name: Row() for name in PLACES}
    figures: dict[str, float] = {}
    try:
        with two_nodes() as nodes:
            with Run(folder, "whole", nodes) as run:
                run.finish()
            whole, codes = run.folder, []
            with Run(folder, "killed", nodes) as run:
                codes += _interrupted(run, rows["node_killed"], KILLS, _kill, whole)
            with Run(folder, "cut", nodes) as run:
                codes += _interrupted(run, rows["link_cut"], CUTS, _cut(nodes), whole)
            with Run(folder, "elastic", nodes, elastic=True) as run:
                sizes = _elastic(run, rows["elastic"], whole)
    except UnmadeError as error:
        print(f"two nodes: not run, network namespaces cannot be made here: {error}")
        return {}, {}
    figures["nodes_unexpected_codes"] = len(codes)
    figures["elastic_sizes_as_meant"] = int(sizes == [2, 1, 2])
    print(
        f"exit codes of a node other than 0 and 76: {codes or 'none'}; sizes of the world {sizes}"
    )
    return rows, figures


PLACES = {
    "node_killed": "two nodes, one killed",
    "link_cut": "two nodes, link cut",
    "elastic": "two, one, two nodes",
}
BARS = {
    "node_killed_kills": (">=", KILLS),
    "node_killed_max_abs_dw": ("<=", 0.0),
    "link_cut_kills": (">=", CUTS),
    "link_cut_max_abs_dw": ("<=", 0.0),
    "nodes_unexpected_codes": ("<=", 0),
    "elastic_max_abs_dw": ("<=", 1e-5),  # float32: ranks sum in another order
    "elastic_sizes_as_meant": (">=", 1),
}
