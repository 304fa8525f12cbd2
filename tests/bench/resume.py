"""Kill -9 at 20 random steps, SIGTERM, a corrupt checkpoint, a killed rank: the same weights after.

A small run on scenes with 0, 2 and 4 data workers is killed at random steps and resumed each time,
and held against one that nothing interrupts: final weights, and what each step was given (names,
pixels and tokens of every batch, replays included). Runs are the command itself, forked from a
process that has imported torch and open_clip; under torchrun they start from nothing, and the time
from the kill of a rank to the first new step counts their imports. Wall time depends on what else
runs here, so the CPU-seconds of the new ranks until then are given too. How long steps wait for a
checkpoint is measured on ViT-B-32 with AdamW.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, read_json, verify_files
from ptft.checkpoint import checkpoints
from ptft.recipe import dump_recipe
from ptft.recipe.load import parse_recipe
from tests.support.warm import Child, Warm, logged_steps, read_order

STEPS, BATCH, EVERY = 24, 8, 3
KILLS = {0: 7, 2: 7, 4: 6}  # by data workers
RANKS = 2
CHECKPOINTS = 4  # that steps are blocked by


def write_recipe(
    folder: Path,
    name: str,
    *,
    steps: int = STEPS,
    workers: int = 0,
    every: int = EVERY,
    large: bool = False,
) -> Path:
    """A run in ``folder/name``: towers of a few hundred thousand weights, or ViT-S-32."""
    towers = {
        "image": "test_vit",
        "image_size": 32,
        "text": {"width": 32, "layers": 1, "heads": 2, "context_length": 32},
        "embed_dim": 16,
    }
    values: dict[str, Any] = {
        "name": name,
        "model": {"name": "ViT-S-32"} if large else towers,
        "data": {"kind": "scenes", "size": 32, "train": 72, "val": 16, "test": 16},
        "optim": {
            "samples_seen": steps * BATCH,
            "global_batch": BATCH,
            "lr": 1e-3,
            "precision": "fp32",
        },
        "run": {
            "dir": str(folder / name),
            "device": "cpu",
            "threads": 1,
            "workers": workers,
            "checkpoint_every": every,
            "log_every": 1,
            "trackers": [],
        },
    }
    path = folder / f"{name}.yaml"
    path.write_text(dump_recipe(parse_recipe(values, where=name)))
    return path


def difference(one: Path, other: Path) -> float:
    """Largest |dW| of two finished runs."""
    from safetensors.torch import load_file

    a, b = (load_file(folder / RunFiles.FINAL / "model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def finish(child: Child) -> None:
    code = child.wait()
    assert code == 0, f"exit code {code}: {child.err.read_text()[-2000:]}"


def kill_at(child: Child, folder: Path, step: int, draw: random.Random) -> None:
    """SIGKILL within the step after ``step``."""
    reached = child.wait_until(lambda: step in logged_steps(folder / RunFiles.LOG)[-1:])
    assert reached or step in logged_steps(folder / RunFiles.LOG), child.err.read_text()[-2000:]
    time.sleep(draw.uniform(0.0, 0.02))
    child.kill()
    child.wait()


def killed(warm: Warm, folder: Path, whole: Path, wanted: dict[int, int]) -> dict[str, float]:
    """So many kills by data workers."""
    draw = random.Random(0)
    expected = read_order(whole.with_suffix(".order"))
    worst, same_weights, same_order, kills = 0.0, 0, 0, 0
    print(f"{'workers':<9}{'killed at steps':<36}{'max |dW|':>10}{'batches replayed':>18}")
    for workers, count in wanted.items():
        name = f"killed-{workers}"
        recipe = write_recipe(folder, name, workers=workers)
        steps = sorted(draw.sample(range(1, STEPS), count))
        orders = [folder / f"{name}-{number}.order" for number in range(count + 1)]
        for number, step in enumerate(steps):
            options = ["--resume"] if number else []
            child = warm.ptft("train", recipe, *options, order=orders[number])
            kill_at(child, folder / name, step, draw)
        finish(warm.ptft("train", recipe, "--resume", order=orders[-1]))
        dw = difference(whole, folder / name)
        found = read_order(*[path for path in orders if path.is_file()])
        lines = sum(len(path.read_text().splitlines()) for path in orders if path.is_file())
        kills += count
        worst = max(worst, dw)
        same_weights += count if dw == 0.0 else 0
        same_order += count if found == expected else 0
        shown = " ".join(map(str, steps))
        print(f"{workers:<9}{shown:<36}{dw:>10.1e}{lines - len(expected):>18}")
    return {
        "kills": kills,
        "identical": same_weights,
        "identical_order": same_order,
        "max_abs_dw": worst,
    }


def corrupted(warm: Warm, folder: Path, whole: Path) -> float:
    """1 if a run whose newest checkpoint is spoiled goes on from the one before, and rightly."""
    recipe = write_recipe(folder, "corrupted")
    child = warm.ptft("train", recipe)
    kill_at(child, folder / "corrupted", 4 * EVERY + 1, random.Random(1))
    newest, before = checkpoints(folder / "corrupted" / RunFiles.CHECKPOINTS)[:2]
    path = newest / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    child = warm.ptft("train", recipe, "--resume")
    finish(child)
    told = newest.name in child.err.read_text()
    dw = difference(whole, folder / "corrupted")
    print(f"newest checkpoint {newest.name} corrupted, {before.name} before it: max |dW| {dw:.1e}")
    return float(told and dw == 0.0)


def terminated(warm: Warm, folder: Path, name: str, *, large: bool = False) -> float:
    """Seconds from SIGTERM to the end of a run that left a complete checkpoint of its last step."""
    recipe = write_recipe(folder, name, steps=10_000, every=10_000, large=large)
    child = warm.ptft("train", recipe)
    log = folder / name / RunFiles.LOG
    assert child.wait_until(lambda: len(logged_steps(log)) >= 2), child.err.read_text()[-2000:]
    started = time.monotonic()
    child.kill(signal.SIGTERM)
    code = child.wait()
    seconds = time.monotonic() - started
    assert code == 128 + signal.SIGTERM, child.err.read_text()[-2000:]
    [path] = checkpoints(folder / name / RunFiles.CHECKPOINTS)
    files = read_json(path / "state.json")["files"]
    verify_files(path, files)
    assert int(path.name.removeprefix("step-")) == logged_steps(log)[-1]
    size = sum(file["size"] for file in files.values()) / 1e6
    print(f"SIGTERM, {size:,.0f} MB: complete checkpoint and exit after {seconds:.2f} s")
    return seconds


def blocked(folder: Path, *, small: bool) -> dict[str, float]:
    """Seconds a GB that steps wait for a checkpoint of ViT-B-32 with AdamW's moments, each written
    beside what the thread of the steps computes meanwhile, and for one that is waited for."""
    from ptft.checkpoint import Background, TrainProgress, save_checkpoint

    model, optimizer = _learner("ViT-S-32" if small else "ViT-B-32")
    size = _bytes(model, optimizer) / 1e9
    writer, waited, cpu, beside = Background(), [], 0.0, 0
    writer.prepare(model, optimizer, {})
    for step in range(1, CHECKPOINTS + 1):
        while writer.busy:  # as long as the steps before it
            beside += _computed()
        began, used = time.monotonic(), time.thread_time()
        writer.finish()
        progress = TrainProgress(step=step)
        writer.begin(folder, model, optimizer, progress, {}, copied=True)
        waited.append((time.monotonic() - began) / size)
        cpu += (time.thread_time() - used) / size / CHECKPOINTS
    writer.finish()
    writer.close()
    began = time.monotonic()
    save_checkpoint(folder, model, optimizer, TrainProgress(step=CHECKPOINTS + 1))
    whole = (time.monotonic() - began) / size
    shown = ", ".join(f"{seconds:.2f}" for seconds in waited)
    print(
        f"a checkpoint of {size:.2f} GB: steps wait for {shown} s a GB ({cpu:.2f} CPU-s), and "
        f"for {whole:.2f} where they wait until it is written; load {os.getloadavg()[0]:.1f}"
    )
    assert beside or small, "nothing was computed beside it"
    return {
        "blocked_s_per_gb": round(max(waited), 3),
        "blocked_cpu_s_per_gb": round(cpu, 3),
        "whole_s_per_gb": round(whole, 2),
    }


def _learner(name: str) -> Any:
    """A model with random weights, and AdamW after a step."""
    import torch

    from ptft.model import build_model
    from ptft.recipe import ArchModel, ClipObjective

    torch.set_num_threads(1)
    model = build_model(ArchModel(name=name), None, ClipObjective(), seed=0)
    named = list(model.named_parameters())
    group = {"params": [p for _, p in named], "names": [n for n, _ in named]}
    optimizer = torch.optim.AdamW([group], lr=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return model, optimizer


def _bytes(model: Any, optimizer: Any) -> int:
    state = [value for values in optimizer.state.values() for value in values.values()]
    return sum(tensor.nbytes for tensor in [*model.state_dict().values(), *state])


def _computed() -> int:
    import torch

    return int((torch.ones(256, 256) @ torch.ones(256, 256)).numel() > 0)


def restarted(folder: Path, ranks: int) -> dict[str, float]:
    """A rank killed under torchrun, against a run of as many that nothing interrupts."""
    kill_after, steps = 10, 60
    assert launched(write_recipe(folder, "ranks", steps=steps), ranks).wait() == 0
    recipe = write_recipe(folder, "ranks-killed", steps=steps)
    log = folder / "ranks-killed" / RunFiles.LOG
    with launched(recipe, ranks) as agent:
        _wait(agent, lambda: len(logged_steps(log)) >= kill_after)
        before = children(agent.pid)
        inode = log.stat().st_ino
        killed_at = time.monotonic()
        os.kill(before[-1], signal.SIGKILL)
        # the ranks that go on rewrite the log up to their checkpoint, then add to it
        _wait(agent, lambda: log.stat().st_ino != inode)
        kept = len(logged_steps(log))
        _wait(agent, lambda: len(logged_steps(log)) > kept)
        seconds = time.monotonic() - killed_at
        cpu = sum(cpu_seconds(pid) for pid in set(children(agent.pid)) - set(before))
        assert agent.wait() == 0
    dw = difference(folder / "ranks", folder / "ranks-killed")
    print(
        f"torchrun, a rank of {ranks} killed: first new step after {seconds:.1f} s "
        f"({cpu:.1f} CPU-s of the new ranks, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}); max |dW| {dw:.1e}"
    )
    return {
        "resumed_s": round(seconds, 2),
        "resumed_cpu_s": round(cpu, 1),
        "torchrun_max_abs_dw": dw,
    }


def launched(recipe: Path, ranks: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    options = ["--nproc-per-node", str(ranks), "--max-restarts", "3"]
    errors = recipe.with_suffix(".err").open("wb")
    return subprocess.Popen(
        [*command, *options, "-m", "ptft", "train", str(recipe)],
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _wait(agent: "subprocess.Popen[bytes]", condition: Any) -> None:
    while not condition():
        assert agent.poll() is None, "torchrun ended early"
        time.sleep(0.01)


def children(pid: int) -> Sequence[int]:
    """Processes that ``pid`` started and that still run."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(*, smoke: bool = False) -> dict[str, float]:
    wanted, ranks = ({0: 1}, 1) if smoke else (KILLS, RANKS)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = folder / "whole"
        with Warm(folder) as warm:
            recipe = write_recipe(folder, "whole")
            finish(warm.ptft("train", recipe, order=whole.with_suffix(".order")))
            figures |= killed(warm, folder, whole, wanted)
            figures["fallback_ok"] = corrupted(warm, folder, whole)
            figures["sigterm_s"] = round(terminated(warm, folder, "terminated"), 2)
            if not smoke:
                seconds = terminated(warm, folder, "large", large=True)
                figures["sigterm_vit_s_32_s"] = round(seconds, 2)
        figures |= restarted(folder, ranks)
        figures |= blocked(folder / "blocked", small=smoke)
    return figures


BARS = {
    "kills": (">=", 20),
    "identical": (">=", 20),
    "identical_order": (">=", 20),
    "max_abs_dw": ("<=", 0.0),
    "fallback_ok": (">=", 1),
    "sigterm_s": ("<=", 5.0),
    "resumed_s": ("<=", 10.0),
    "torchrun_max_abs_dw": ("<=", 0.0),
    "blocked_s_per_gb": ("<=", 0.3),
}
