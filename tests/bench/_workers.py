"""A comparison by two workers in two network namespaces with one results folder, beside one process
with two jobs: the same figures in every cell, also where one worker is killed in the middle."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.support.comparisons import comparison
from tests.support.warm import Child, Warm

__all__ = ["compared", "namespaces"]

ROUNDS = 2
_OF_LOAD = ("cpu_seconds", "search_cpu_seconds", "wall_seconds", "gpu_seconds", "peak_bytes")
_SMALL = ["compare.arms=[{kind: zero_shot}, {kind: full}]", "compare.seeds=1", "compare.trials=1"]
_WHOLE = [
    "compare.arms=[{kind: zero_shot}, {kind: full}, {kind: l2_sp}, {kind: lora}]",
    "compare.budgets=[8, 16, 32]",
    "compare.samples_per_label=40",
    "optim.samples_seen=1024",
]


@contextlib.contextmanager
def namespaces(count: int) -> Iterator[list[Callable[[list[str]], list[str]]]]:
    """What takes a command into each of so many network namespaces, without a way out; this
    process's own, where that is not allowed."""
    names = [f"ptft{os.getpid()}-{number}" for number in range(count)]
    made = []
    for name in names if os.geteuid() == 0 else []:
        done = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
        made += [name] if done.returncode == 0 else []
    try:
        if len(made) < count:
            print("network namespaces cannot be made here (root and iproute2): none is used")
            yield [list] * count
            return
        yield [_into(name) for name in made]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=True)


def _into(name: str) -> Callable[[list[str]], list[str]]:
    return lambda command: ["ip", "netns", "exec", name, *command]


def compared(folder: Path, *, smoke: bool) -> dict[str, float]:
    """Seconds of either way in turn, cells whose figures differ, and cells done twice."""
    folder.mkdir()
    comparison(folder)
    recipe, size = folder / "comparison.yaml", _SMALL if smoke else _WHOLE
    one: list[float] = []
    two: list[float] = []
    different = twice = 0
    with contextlib.ExitStack() as held:
        warm = [
            held.enter_context(Warm(_made(folder / f"w{number}"), apart=apart))
            for number, apart in enumerate(held.enter_context(namespaces(2)))
        ]
        whole: dict[str, Any] = {}
        for number in range(1 if smoke else ROUNDS):
            place = folder / f"one-{number}"
            command = ["compare", recipe, *size, f"run.dir={place}", "compare.jobs=2"]
            one.append(_seconds([warm[0].ptft(*command)]))
            whole = whole or figures(place)
            place = folder / f"two-{number}"
            two.append(_seconds([_worker(each, recipe, size, place) for each in warm]))
            different += differ(whole, figures(place))
            twice += _claimed_again(place)
        place = folder / "killed"
        first, second = (_worker(each, recipe, size, place) for each in warm)
        cells = len(whole)
        assert second.wait_until(lambda: len(_cells(place)) >= cells // 3)
        second.kill()
        second.wait()
        assert first.wait() == 0, first.err.read_text()[-2000:]
        different += differ(whole, figures(place))
        again = _claimed_again(place)
    print(
        f"a comparison of {cells} cells: one process with two jobs {median(one):.1f} s, two "
        f"workers {median(two):.1f} s ({min(two) / min(one):.2f}); cells that differ {different}, "
        f"jobs claimed twice {twice}; one killed in the middle: {again} of its jobs done by the "
        "other"
    )
    return {
        "workers_cells": cells,
        "workers_time_ratio": round(min(two) / min(one), 3),
        "workers_different_cells": different,
        "workers_claimed_twice": twice,
        "workers_claimed_after_kill": again,
    }


def figures(folder: Path) -> dict[str, Any]:
    """Cells by their names, without what depends on the machine's load."""
    found = {}
    for path in _cells(folder):
        cell = json.loads(path.read_text())
        for name in _OF_LOAD:
            del cell["costs"][name]
        for trial in cell["trials"]:
            del trial["cpu_seconds"]
        found[path.stem] = cell
    return found


def differ(these: dict[str, Any], those: dict[str, Any]) -> int:
    """Cells that are not in both, or not the same."""
    return sum(these.get(name) != those.get(name) for name in these.keys() | those.keys())


def _cells(folder: Path) -> list[Path]:
    return sorted((folder / "cells").glob("[!.]*.json"))


def _claimed_again(folder: Path) -> int:
    return len([path for path in (folder / "claims").iterdir() if not path.stem.endswith(".1")])


def _worker(warm: Warm, recipe: Path, size: Sequence[str], place: Path) -> Child:
    return warm.ptft("compare", recipe, *size, f"run.dir={place}", "compare.jobs=1", "--worker")


def _seconds(children: Sequence[Child]) -> float:
    began = time.monotonic()
    for child in children:
        code = child.wait()
        assert code == 0, (signal.Signals(-code) if code < 0 else code, child.err.read_text())
    return time.monotonic() - began


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
