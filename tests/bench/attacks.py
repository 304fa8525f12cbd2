"""What each attack costs the honest: their p99, the worker's memory, and how long it lasts.

Four honest clients ask alone for 5 s, beside an attack for 30 s, and until all is normal, of a new
``python -m serving`` for each attack (ViT-S-32 with random weights). The p99 is that of the client
that fares worst; it may be twice what it was alone, or half a second, which a picture and a batch
that have begun may take on a busy machine. Attackers have the processor after the others, as if on
another machine. ``load`` is the machine's load average before the attack, of others too.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ptft.export import export_model
from ptft.model import build_model, save_model
from ptft.recipe import ArchModel, ClipObjective
from tests.bench._foes import FOES
from tests.bench._honest import Honest, Memory, resident_mb
from tests.serving.server import serve_plain
from tests.support.tiny import arch_section

FLOOR_S = 0.5
RECOVERY_S = 60.0
SMOKE = ("webp_bomb",)


@dataclass
class Row:
    """Of one attack; seconds, MB."""

    name: str
    alone: float
    beside: float
    refused: int
    normal: float
    grown: float
    restarted: bool
    told: dict[str, int]

    @property
    def ratio(self) -> float:
        """1 at what the p99 may be."""
        return self.beside / max(FLOOR_S, 2 * self.alone)


def make_folder(home: Path, *, smoke: bool) -> Path:
    """A model folder with random weights."""
    section = arch_section() if smoke else ArchModel(name="ViT-S-32")
    save_model(build_model(section, None, ClipObjective(), seed=0), home / "checkpoint")
    export_model(home / "checkpoint", home / "model", name="bench", precisions=())
    return home / "model"


def attack(name: str, folder: Path, home: Path, alone_s: float, seconds: float) -> Row:
    """One attack on a service of its own."""
    with serve_plain(home, {"PTFT_MODEL": str(folder)}) as server:
        worker = server.worker()
        with Honest(server.url) as honest, Memory(worker) as memory:
            honest.wait()
            time.sleep(1.0)
            began, before = time.monotonic(), resident_mb(worker)
            time.sleep(alone_s)
            start = time.monotonic()
            alone = honest.slowest(began, start)
            memory.peak = 0.0
            words = [sys.executable, "-m", "tests.bench._foes", server.url, name, str(seconds)]
            told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            end = time.monotonic()
            normal = honest.normal_after(end, max(FLOOR_S, 2 * alone), RECOVERY_S)
            statuses = honest.statuses(start, end)
            return Row(
                name,
                alone,
                honest.slowest(start, end),
                sum(statuses.values()) - statuses["200"],
                normal,
                memory.peak - before,
                server.worker() != worker or math.isnan(resident_mb(worker)),
                json.loads(told),
            )


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    names = SMOKE if smoke else tuple(FOES)
    alone_s, seconds = (0.5, 0.5) if smoke else (5.0, 30.0)
    rows = []
    print(f"{'attack':<24}{'p99 alone':>10}{'beside':>9}{'ratio':>7}{'refused':>8}{'normal':>8}"
          f"{'MB':>6}{'load':>6}  attacker")  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        folder = make_folder(Path(home), smoke=smoke)
        for name in names:
            load = os.getloadavg()[0]
            row = attack(name, folder, Path(home), alone_s, seconds)
            rows.append(row)
            told = " ".join(f"{status}x{count}" for status, count in sorted(row.told.items()))
            print(f"{name:<24}{row.alone:>10.3f}{row.beside:>9.3f}{row.ratio:>7.2f}"
                  f"{row.refused:>8}{row.normal:>8.1f}{row.grown:>6.0f}{load:>6.1f}  {told}",
                  flush=True)  # fmt: skip
    return {
        "p99_of_allowed": max(row.ratio for row in rows),
        "p99_ratio": max(row.beside / row.alone for row in rows),
        "refused": sum(row.refused for row in rows),
        "restarts": sum(row.restarted for row in rows),
        "grown_mb": max(row.grown for row in rows),
        "normal_after_s": max(row.normal for row in rows),
    }


BARS = {
    "p99_of_allowed": ("<=", 1.0),
    "refused": ("<=", 0),
    "restarts": ("<=", 0),
    "grown_mb": ("<=", 150.0),
    "normal_after_s": ("<=", 2.0),
}
