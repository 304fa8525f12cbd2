"""Launch files, and clients that record what they are called with and then do it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptft.launch import Form, LaunchFile, Rendered, System, render_launch

__all__ = ["FORMS", "FULL", "Recorder", "expanded", "launch_of", "rendered"]

FULL: dict[str, Any] = {
    "image": "ghcr.io/me/ptft-train@sha256:" + "0" * 64,
    "gpus": "a100-80x8",
    "cpus": 16,
    "memory_gb": 200,
    "disk_gb": 300,
    "spot": True,
    "hours": 12,
    "mirror": "s3://bucket/runs",
    "secrets": ["HF_TOKEN"],
    "env": {"NCCL_DEBUG": "WARN"},
    "kubernetes": {"secret": "tokens", "node_selector": {"pool": "gpu"}},
}
FORMS = [
    (System.SKYPILOT, Form.JOB),
    (System.SLURM, Form.JOB),
    *((System.KUBERNETES, form) for form in Form),
    (System.HF_JOBS, Form.JOB),
]

_CLIENT = """\
#!{python}
import json, os, sys
if sys.argv[1:3] == ["-m", "ptft.launch.notice"]:  # beside the run; no test asks a real machine
    {watcher}
    sys.exit()
with open({log!r}, "a") as log:
    log.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
{then}
"""
_PYTHON = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


def launch_of(**changes: Any) -> LaunchFile:
    """:data:`FULL` with keys changed."""
    return LaunchFile.model_validate({**FULL, **changes})


def rendered(
    source: str, *overrides: str, on: System, form: Form = Form.JOB, **changes: Any
) -> Rendered:
    """A recipe as a system takes it, with :data:`FULL` changed."""
    return render_launch(source, overrides, launch_of(**changes), on, form=form)


def expanded(text: str, env: Mapping[str, str]) -> str:
    """What the kubelet makes of an argument or a value: ``$(NAME)`` is that variable, if there is
    one, and ``$$`` a dollar (k8s.io/kubernetes, third_party/forked/golang/expansion)."""
    found = re.compile(r"\$(?:(\$)|\(([^)]*)\))")
    return found.sub(lambda match: match[1] or env.get(match[2], match[0]), text)


class Recorder:
    """Programs of a folder that is first on the PATH: each writes down its words.

    Args:
        folder: to make them in.
        watcher: a Python line in place of what asks whether the machine is taken away.
        then: Python lines by the program's name, run after that.
    """

    def __init__(self, folder: Path, *, watcher: str = "pass", **then: str) -> None:
        self._log = folder / "called.jsonl"
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        for name, lines in {"ptft": "", "python3": _PYTHON, **then}.items():
            program = self.programs / name
            given = {"log": str(self._log), "name": name, "then": lines, "watcher": watcher}
            text = _CLIENT.format(python=sys.executable, **given)
            program.write_text(text)
            program.chmod(0o755)

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}"}

    @property
    def called(self) -> list[list[str]]:
        """Words of each call, in order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [json.loads(line) for line in lines]

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env={**self.env, **env}, capture_output=True, text=True, check=False
        )
