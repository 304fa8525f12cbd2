"""``make gpu``: the first minutes on a GPU, one command of less than eight.

1. ``tests/train/test_gpu.py``: gradients, tiled losses, NCCL, FSDP2, GradCache and features there.
2. ``python -m tests.bench gpu_train``: samples a second and memory beside open_clip's step.
3. An exported model on onnxruntime's CUDA provider beside its CPU's: milliseconds a picture.

Each has a part of the time, and what is not done by then says so. Card, versions and figures become
the section "On a GPU" of ``docs/results.md``. ``--smoke`` runs every part on the CPU, as small as
it can be and without a limit, and shows that section.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["SECONDS", "main", "record"]

SECONDS = {"tests": 120, "train": 220, "serve": 110}
"""At most, by part; the rest of eight minutes is for imports."""
HEAD = "## On a GPU"
_ROOT = Path(__file__).parents[1]
_RESULTS = _ROOT / "docs" / "results.md"


class Part(NamedTuple):
    """What a part showed: whether all of it held, and lines of Markdown."""

    ok: bool
    lines: list[str]


def main(arguments: Sequence[str]) -> int:
    """Run all parts, record them; 0 where everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu")
    parser.add_argument("--smoke", action="store_true", help="on the CPU, to see that it runs")
    parser.add_argument("--results", type=Path, help=f"the page; {_RESULTS.name} of the checkout")
    parsed = parser.parse_args(arguments)
    if not (parsed.smoke or torch.cuda.is_available()):
        print("torch sees no GPU here; --smoke runs every part on the CPU", file=sys.stderr)  # noqa: T201
        return 1
    began = time.monotonic()
    parts = [
        _tests(smoke=parsed.smoke),
        _train(smoke=parsed.smoke),
        _serve(smoke=parsed.smoke),
    ]
    text = "\n\n".join([_machine(), *("\n".join(part.lines) for part in parts)])
    text += f"\n\nAll of it took {(time.monotonic() - began) / 60:.1f} minutes (`make gpu`)."
    print(f"{HEAD}\n\n{text}")  # noqa: T201
    if parsed.results or not parsed.smoke:
        record(parsed.results or _RESULTS, text)
    return 0 if all(part.ok for part in parts) else 1


def record(page: Path, text: str) -> None:
    """Put a text under the heading of a page, in place of what stands there; at its end where the
    page has no such heading."""
    before, head, after = page.read_text().partition(f"{HEAD}\n")
    next_one = after.find("\n## ")
    rest = after[next_one:] if head and next_one >= 0 else ""
    page.write_text(f"{before.rstrip()}\n\n{HEAD}\n\n{text}\n{rest}")


def _machine() -> str:
    """The card and the versions, in a line."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU (a smoke run)"
    parts = [card, f"torch {torch.__version__}", f"CUDA {torch.version.cuda or 'none'}"]
    for name in ("onnxruntime-gpu", "onnxruntime"):
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
        break
    return ", ".join([*parts, f"Python {platform.python_version()}"]) + "."


def _ran(words: Sequence[object], seconds: float | None) -> tuple[int | None, str, str]:
    """Exit code, output and what was said of a module; None: time was over."""
    command = [sys.executable, "-m", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(_ROOT)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=env, cwd=_ROOT
        )
    except subprocess.TimeoutExpired as late:
        shown = late.stdout or b""
        return None, shown.decode() if isinstance(shown, bytes) else shown, ""
    return done.returncode, done.stdout, done.stderr


def _tests(*, smoke: bool) -> Part:
    words = ["pytest", "-q", "-p", "no:cacheprovider", "--durations=0", "tests/train/test_gpu.py"]
    code, out, _ = _ran(words, None if smoke else SECONDS["tests"])
    said = out.strip().splitlines()
    # pytest's last line, without the time that it took
    found = said[-1].strip("= ").partition(" in ")[0] if code is not None and said else "not done"
    failed = [line for line in said if line.startswith(("FAILED", "ERROR"))]
    lines = [f"`tests/train/test_gpu.py`: {found}.", *(f"- `{line}`" for line in failed)]
    return Part(code == 0, lines)


def _train(*, smoke: bool) -> Part:
    if smoke:
        from tests.bench import gpu_train
        from tests.support.tiny import arch_section

        name = arch_section().name
        found = {
            whose: gpu_train.one(whose, name, 4, 2, "cpu", 1) for whose in ("ptft", "open_clip")
        }
        ratio = found["open_clip"]["seconds"] / found["ptft"]["seconds"]
        return Part(True, [f"A step of {name} on the CPU: {ratio:.2f} times open_clip's speed."])
    code, out, err = _ran(["tests.bench", "gpu_train"], SECONDS["train"])
    said = out.strip().splitlines()
    held = ["All bars hold."] if code == 0 else ["Not all bars hold."]
    if code is None:
        held = [
            f"Not done within {SECONDS['train']} s: what stands here is what there was by then."
        ]
    elif not said or not said[-1].startswith("{"):
        held, said = [f"It broke off: `{(err.strip().splitlines() or ['?'])[-1]}`"], [*said, ""]
    table = said if code is None else said[:-1]
    return Part(
        code == 0, ["`python -m tests.bench gpu_train`:", "", "```text", *table, "```", "", *held]
    )


def _serve(*, smoke: bool) -> Part:
    """The same file on both providers, each in a process of its own; embeddings within 1e-3."""
    import numpy as np

    from ptft.export import export_model
    from ptft.model import build_model, save_model
    from ptft.recipe import ArchModel, ClipObjective
    from tests.support.tiny import arch_section

    end = time.monotonic() + SECONDS["serve"]
    section = arch_section() if smoke else ArchModel(name="ViT-B-32")
    lines = [
        f"`python -m tests.bench._provider`, {section.name} in fp32, four pictures at once:",
        "",
        "| provider | ms a picture | largest difference from the CPU's |",
        "|---|---|---|",
    ]
    ok, rows = True, dict[str, np.ndarray]()
    with tempfile.TemporaryDirectory() as home:
        run, folder = Path(home, "run"), Path(home, "model")
        save_model(build_model(section, None, ClipObjective(), seed=0), run)
        export_model(run, folder, name="gpu", precisions=())
        for name in ("cpu",) if smoke else ("cpu", "cuda"):
            out = Path(home, f"{name}.npy")
            words = ["tests.bench._provider", folder, name, out, 2 if smoke else 20]
            code, said, err = _ran(words, None if smoke else max(1.0, end - time.monotonic()))
            if code != 0:
                why = (
                    "not done in time" if code is None else (err.strip().splitlines() or ["?"])[-1]
                )
                lines.append(f"| {name} | none | {why} |")
                ok = False
                continue
            rows[name] = np.load(out)
            apart = float(np.abs(rows[name] - rows["cpu"]).max()) if "cpu" in rows else float("nan")
            ok &= apart < 1e-3  # TF32 on a GPU rounds to ten bits
            ms = json.loads(said.strip().splitlines()[-1])["ms"]
            lines.append(f"| {name} | {ms:.2f} | {apart:.1e} |")
    return Part(ok, lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
