"""What ``ptft launch`` writes, for every system, kind of recipe and size: rendered and validated.

Each file is held against what its system's own side says of it: SkyPilot's parser and Kubeflow's
models (in the environment that ``make clients`` makes), Kubernetes' schemas, bash's grammar and,
where Debian's slurm-wlm is installed, a real ``sbatch --test-only``; the dry run of ``hf jobs``.
A refusal by name, where a system does not have what is asked for, is an answer too.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from tests.bench._parts import Absent

BARS = {"wrong": ("<=", 0), "validated": (">=", 30), "unchecked": ("<=", 0)}

_REPO = Path(__file__).resolve().parents[2]
_RECIPES = {
    "train": "pretrain/scenes",
    "stages": "finetune/emoji-continual",
    "compare": "compare/scenes",
}
_SIZES: dict[str, dict[str, Any]] = {
    "1 GPU": {"gpus": "a100-80x1"},
    "8 GPUs": {"gpus": "a100-80x8"},
    "2 nodes": {"gpus": "a100-80x8", "nodes": 2, "runs": "/shared"},
    "4 workers": {"gpus": "a100-80x1", "workers": 4},
}
_FULL = {
    "image": "ghcr.io/me/ptft-train@sha256:" + "0" * 64,
    "hours": 12,
    "mirror": "s3://bucket/runs",
    "secrets": ["HF_TOKEN"],
    "kubernetes": {"secret": "tokens", "claim": "runs", "node_selector": {"pool": "gpu"}},
}


def run(*, smoke: bool = False) -> dict[str, float]:
    from ptft.errors import UsageError
    from ptft.launch import Form, LaunchFile, System, render_launch, write_rendered

    found: dict[tuple[str, str, str], str] = {}
    with tempfile.TemporaryDirectory() as made, ExitStack() as held:
        checks = _Checks(Path(made), held, smoke=smoke)
        files: dict[tuple[str, str, str], Path] = {}
        for kind, recipe in list(_RECIPES.items())[: 1 if smoke else None]:
            for size, changes in _SIZES.items():
                launch = LaunchFile.model_validate({**_FULL, **changes})
                for on, form in [(on, Form.JOB) for on in System] + [
                    (System.KUBERNETES, Form.JOBSET),
                    (System.KUBERNETES, Form.TRAINJOB),
                ]:
                    label = str(on) if form is Form.JOB else str(form)
                    case = (label, kind, size)
                    try:
                        rendered = render_launch(recipe, (), launch, on, form=form)
                    except UsageError as error:
                        found[case] = f"refused: {str(error).split(':')[0]}"
                        continue
                    folder = Path(made) / f"{kind} {size}".replace(" ", "-")
                    files[case] = write_rendered(rendered, folder)
        found |= checks.run(files)
    _table(found)
    figures = {
        "cases": len(found),
        "validated": sum(one == "ok" for one in found.values()),
        "refused": sum(one.startswith("refused") for one in found.values()),
        "unchecked": sum(one.startswith("unchecked") for one in found.values()),
        "wrong": sum(one.startswith("wrong") for one in found.values()),
    }
    if figures["unchecked"] and not smoke:
        raise Absent(
            "SkyPilot and Kubeflow (`make clients`) or Slurm (Debian: slurm-wlm, munge)", figures
        )
    return figures


def _table(found: dict[tuple[str, str, str], str]) -> None:
    print(f"{'system':<11} {'recipe':<8} " + " ".join(f"{size:<18}" for size in _SIZES))
    for system, kind in dict.fromkeys(case[:2] for case in found):
        cells = " ".join(f"{found[system, kind, size][:18]:<18}" for size in _SIZES)
        print(f"{system:<11} {kind:<8} {cells}")
    for case, told in found.items():
        if told.startswith("wrong"):
            print(f"{' '.join(case)}: {told}")


class _Checks:
    """What says whether a file is right, by its system."""

    def __init__(self, folder: Path, held: ExitStack, *, smoke: bool) -> None:
        from tests.clients.environments import LAUNCHERS, cache_folder, find
        from tests.support.slurm_cluster import SlurmCluster, missing

        self._environment = None if smoke else find(LAUNCHERS, cache_folder())
        self._home = folder
        self._slurm = None
        if not smoke and missing() is None:
            self._slurm = held.enter_context(SlurmCluster(folder / "s"))

    def run(self, files: dict[tuple[str, str, str], Path]) -> dict[tuple[str, str, str], str]:
        found = {}
        libraries = {
            case: path
            for case, path in files.items()
            if case[0] in ("skypilot", "jobset", "trainjob")
        }
        told = self._read(sorted({str(path) for path in libraries.values()}))
        for case, path in files.items():
            if case in libraries:
                found[case] = self._library(path, told)
            elif case[0] == "kubernetes":
                found[case] = _kubernetes(path)
            elif case[0] == "slurm":
                found[case] = self._sbatch(path)
            else:
                found[case] = _hf(path)
        return found

    def _read(self, paths: list[str]) -> dict[str, Any]:
        if self._environment is None:
            return {}
        script = _REPO / "tests" / "clients" / "with_launchers.py"
        command = [self._environment / "bin" / "python", script, *paths]
        env = {**os.environ, "HOME": str(self._home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def _library(self, path: Path, told: dict[str, Any]) -> str:
        if str(path) not in told:
            return "unchecked: no library"
        if path.name.endswith(".sky.yaml"):
            return "ok" if told[str(path)]["run"].startswith("set -eu\n") else "wrong: run"
        written = list(yaml.safe_load_all(path.read_text()))
        return "ok" if told[str(path)] == written else "wrong: the model loses keys"

    def _sbatch(self, path: Path) -> str:
        if self._slurm is None:
            done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
            return "unchecked: no Slurm" if done.returncode == 0 else f"wrong: {done.stderr}"
        # this cluster has one node without GPUs: what it has not is left to the grammar
        text = "".join(
            line
            for line in path.read_text().splitlines(keepends=True)
            if not line.startswith(("#SBATCH --gpus", "#SBATCH --nodes"))
        )
        small = path.with_suffix(".small")
        small.write_text(text)
        env = self._slurm.env
        command = ["sbatch", "--test-only", str(small)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return "ok" if done.returncode == 0 else f"wrong: {done.stderr.strip()}"


def _kubernetes(path: Path) -> str:
    import kubernetes_validate

    try:
        for document in yaml.safe_load_all(path.read_text()):
            kubernetes_validate.validate(document, "1.36", strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"wrong: {error}"
    return "ok"


def _hf(path: Path) -> str:
    """Each command of the script by the client's dry run."""
    dry = path.with_suffix(".dry.sh")
    dry.write_text(path.read_text().replace("hf jobs run ", "hf jobs run --dry-run "))
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": programs, "HF_TOKEN": "hf_x", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(["sh", dry], env=env, capture_output=True, text=True, check=False)
    commands = path.read_text().count("\nhf jobs run ")
    shown = done.stdout.count("(dry run) Job not submitted.")
    right = done.returncode == 0 and shown == commands
    return "ok" if right else f"wrong: {done.stderr.strip()} {shown} of {commands}"
