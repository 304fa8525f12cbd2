"""The towers on each of onnxruntime's execution providers that can be had, against the CPU's.

ViT-S-32 with random weights on one thread, each provider in a process of its own, in turn: CPU-ms a
picture, the largest difference of embeddings from those of ptft's own onnxruntime, and whether a
provider that cannot be had is refused rather than replaced by the CPU. Makes the environment of
OpenVINO's build first where it is not there.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ptft.export import export_model
from ptft.model import build_model, save_model
from ptft.onnx.provider import PROVIDERS
from ptft.recipe import ArchModel, ClipObjective
from tests.bench._parts import Absent
from tests.clients.environments import OPENVINO, cache_folder, find, make
from tests.support.tiny import arch_section

ROUNDS, COUNT = 3, 20

Found = tuple[str, float, np.ndarray]


def _run(python: Path, folder: Path, name: str, count: int, *options: str) -> Found | str:
    """The provider that ran, CPU-ms a picture and the embeddings; or what was said instead."""
    out = folder.parent / "rows.npy"
    command = [python, "-m", "tests.bench._provider", folder, name, out, str(count), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return said["provider"], said["cpu_ms"], np.load(out)


def run(*, smoke: bool = False) -> dict[str, float]:
    """Measure, print the table, return the figures."""
    cache, own = cache_folder(), Path(sys.executable)
    place = find(OPENVINO, cache) if smoke else make(OPENVINO, cache)
    openvino = place / "bin" / "python" if place else None
    pythons = {"cpu": own} | ({"openvino": openvino} if openvino else {})
    section = arch_section() if smoke else ArchModel(name="ViT-S-32")
    rounds, count = (1, 2) if smoke else (ROUNDS, COUNT)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "model"
        save_model(build_model(section, None, ClipObjective(), seed=0), Path(home) / "run")
        export_model(Path(home) / "run", folder, name="bench", precisions=())
        spent: dict[str, list[float]] = {name: [] for name in pythons}
        rows: dict[str, np.ndarray] = {}
        for _ in range(rounds):
            for name, python in pythons.items():
                found = _run(python, folder, name, count)
                assert not isinstance(found, str), found
                assert found[0] == PROVIDERS[name][0]
                spent[name].append(found[1])
                rows[name] = found[2]
        refused = [_run(own, folder, "cuda", 1)]
        if openvino:
            refused.append(_run(openvino, folder, "openvino", 1, "device_type=NPU"))
    print(f"{'provider':<12}{'CPU-ms a picture':>18}{'difference':>14}")
    for name in pythons:
        apart = float(np.abs(rows[name] - rows["cpu"]).max())
        print(f"{name:<12}{min(spent[name]):>18.2f}{apart:>14.1e}")
        figures |= {f"{name}_cpu_ms": round(min(spent[name]), 3), f"{name}_max_abs": apart}
    for said in refused:
        print(said if isinstance(said, str) else f"replaced by {said[0]}")
    figures["replaced"] = sum(not isinstance(said, str) for said in refused)
    if openvino is None:
        raise Absent("no environment of OpenVINO: `make clients` makes it", figures)
    return figures


BARS = {"openvino_max_abs": ("<=", 1e-4), "replaced": ("<=", 0)}
