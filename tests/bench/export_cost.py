"""What an export costs: CPU and memory of the command and all that it starts.

Models with random weights are built here and exported by ``ptft export`` on one thread, with all
its checks; no data is at hand, so that no evaluation is run. Memory is what no other process can
have meanwhile, summed over the command and its children every few milliseconds: anonymous and
shared pages. Pages of files, which the system reads again, are not of it. The bound is 1.5 times
the weights and 1 GB. What ViT-H-14 would take is stated by the growth between the two.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench._processes import family

MODELS = ("ViT-B-32", "ViT-L-14")
_HUGE = "ViT-H-14", 3.944  # GB of weights in fp32: 986,109,441 parameters


def taken(root: int) -> float:
    """GB of a process and all below it that are no pages of files."""
    total = 0
    for pid in family(root):
        with contextlib.suppress(OSError):  # it ended meanwhile
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
    return total / 1e9


def build(section: dict[str, Any], folder: Path) -> float:
    """A model with random weights, as a run leaves it; GB of its weights."""
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from pydantic import TypeAdapter\n"
        "from ptft.model import build_model, save_model\n"
        "from ptft.recipe import ClipObjective, ModelSection\n"
        "section = TypeAdapter(ModelSection).validate_python(json.loads(sys.argv[1]))\n"
        "save_model(build_model(section, None, ClipObjective(), seed=0), Path(sys.argv[2]))\n"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(section), str(folder)], check=True)
    return (folder / "model.safetensors").stat().st_size / 1e9


def export(source: Path, out: Path) -> dict[str, float]:
    """Export it; CPU seconds, and the most memory."""
    before = os.times()
    with (source.parent / "export.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "ptft", "export", str(source), str(out)],
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        most = 0.0
        while child.poll() is None:
            most = max(most, taken(child.pid))
            time.sleep(0.02)
    said = (source.parent / "export.log").read_text()
    assert child.returncode == 0, said[-2000:]
    for line in said.splitlines():
        if "is left out" in line:
            print(line)
    after = os.times()
    cpu = after.children_user + after.children_system
    return {"cpu": cpu - before.children_user - before.children_system, "gb": most}


def run(*, smoke: bool = False) -> dict[str, float]:
    tiny = {
        "image": "test_vit",
        "image_size": 32,
        "text": {"width": 32, "layers": 1, "heads": 2, "context_length": 32},
        "embed_dim": 16,
    }
    sections = {"tiny": tiny} if smoke else {name: {"name": name} for name in MODELS}
    figures: dict[str, float] = {}
    print(f"{'model':<12}{'weights':>9}{'folder':>9}{'CPU-s':>8}{'most':>8}{'bound':>8}  in GB")
    for name, section in sections.items():
        with tempfile.TemporaryDirectory() as place:
            source, out = Path(place, "source"), Path(place, "out")
            weights = build(section, source)
            found = export(source, out)
            size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e9
        bound = 1.5 * weights + 1
        print(
            f"{name:<12}{weights:>9.2f}{size:>9.2f}{found['cpu']:>8.1f}{found['gb']:>8.2f}"
            f"{bound:>8.2f}"
        )
        key = name.lower().replace("-", "_")
        figures |= {
            f"{key}_cpu_s": round(found["cpu"], 1),
            f"{key}_gb": round(found["gb"], 2),
            f"{key}_of_bound": round(found["gb"] / bound, 3),
        }
    if not smoke:
        each = (figures["vit_l_14_gb"] - figures["vit_b_32_gb"]) / (1.711 - 0.605)
        expected = figures["vit_l_14_gb"] + each * (_HUGE[1] - 1.711)
        figures["vit_h_14_expected_gb"] = round(expected, 1)
        print(f"{_HUGE[0]}, {_HUGE[1]:.2f} GB: {expected:.1f} GB, by the growth between the two")
    return figures


BARS = {
    "vit_b_32_cpu_s": ("<=", 60.0),
    "vit_b_32_of_bound": ("<=", 1.0),
    "vit_l_14_of_bound": ("<=", 1.0),
    "vit_l_14_gb": ("<=", 6.0),
}
