"""An Indexed Job of two pods on a cluster: what ``ptft launch`` wrote, and a pod's ranks killed.

Where KUBECONFIG points at a cluster that may be used, PTFT_E2E_TRAIN_IMAGE names an image of this
ptft that its nodes have, and a claim of the default class may be read and written by two pods.
A pod that loses its ranks counts against ``retries``; the one that it leaves must not.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ptft.launch import Form, LaunchFile, System, render_launch
from tests.bench._nodes import STEPS, longer_recipe
from tests.bench._row import Row

__all__ = ["BARS", "kubernetes_row"]

TIMES = 3  # as many as launch files allow by default: one more that is counted fails the Job
_SECONDS = 600.0
_RUNS = "/runs"
_STEP = "import json;print(max(json.loads(l)['step'] for l in open('{log}')))"
_COMPARE = """
from safetensors.torch import load_file
one, other = (load_file(f"/runs/{name}/final/model.safetensors") for name in ("whole", "lost"))
assert one.keys() == other.keys()
print(max((one[n].double() - other[n].double()).abs().max().item() for n in one))
"""


def _asked() -> str | None:
    """Why there is no row; None: there is one."""
    if not (os.environ.get("KUBECONFIG") and os.environ.get("PTFT_E2E_TRAIN_IMAGE")):
        return "no cluster: KUBECONFIG and PTFT_E2E_TRAIN_IMAGE"
    return None if shutil.which("kubectl") else "kubectl is not installed"


class _Place:
    """A namespace of its own, with a claim for runs."""

    def __init__(self) -> None:
        self.name = f"ptft-bench-{int(time.time()) % 100000}"

    def kubectl(self, *words: str, given: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            ["kubectl", "--namespace", self.name, *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, (words, done.stderr)
        return done.stdout

    def pods(self, job: str) -> list[dict[str, Any]]:
        found = json.loads(self.kubectl("get", "pods", "-l", f"job-name={job}", "-o", "json"))
        return list(found["items"])

    def running(self, job: str) -> dict[int, str]:
        """Names of the pods that run, by their index."""
        index = "batch.kubernetes.io/job-completion-index"
        return {
            int(pod["metadata"]["annotations"][index]): pod["metadata"]["name"]
            for pod in self.pods(job)
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        }

    def conditions(self, job: str) -> set[str]:
        """``Complete``, ``Failed``, as far as they are true."""
        found = json.loads(self.kubectl("get", "job", job, "-o", "json"))["status"]
        return {one["type"] for one in found.get("conditions", ()) if one["status"] == "True"}


@contextlib.contextmanager
def _place() -> Iterator[_Place]:
    place = _Place()
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    claim = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    metadata = {"name": "runs", "namespace": place.name}
    items = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": place.name, "labels": label},
        },
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim},
    ]
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    try:
        place.kubectl("apply", "-f", "-", given=given)
        yield place
    finally:
        place.kubectl("delete", "namespace", place.name, "--wait=false", check=False)


def kubernetes_row(folder: Path) -> Row | None:
    """The ranks of either pod killed at even steps; None where there is no cluster."""
    if (reason := _asked()) is not None:
        print(f"Kubernetes: not run: {reason}")
        return None
    folder.mkdir()
    row = Row()
    with _place() as place:
        _submit(place, folder, "whole")
        _until(place, "whole", lambda: "Complete" in place.conditions("whole"))
        _submit(place, folder, "lost")
        for number in range(TIMES):
            step = (number + 1) * STEPS // (TIMES + 1)
            _until(place, "lost", lambda step=step: _reached(place, "lost") >= step)  # type: ignore[misc]
            reached, began = _reached(place, "lost"), time.monotonic()
            before = place.running("lost")
            place.kubectl("exec", before[number % 2], "--", "bash", "-c", "kill -9 -1", check=False)
            _until(place, "lost", lambda before=before: _anew(place, before))  # type: ignore[misc]
            went_on = _went_on(place)
            _until(place, "lost", lambda went_on=went_on: _reached(place, "lost") > went_on)  # type: ignore[misc]
            row.kills += 1
            row.lost.append(max(0, reached - went_on))
            row.back.append(time.monotonic() - began)
        _until(place, "lost", lambda: "Complete" in place.conditions("lost"))
        row.max_dw = _difference(place, folder)
    return row


def _job(folder: Path, name: str) -> list[dict[str, Any]]:
    values = {
        "image": os.environ["PTFT_E2E_TRAIN_IMAGE"],
        "nodes": 2,
        "runs": _RUNS,
        "retries": TIMES,
        "env": {"OMP_NUM_THREADS": "1"},
        "kubernetes": {"claim": "runs"},
    }
    recipe = longer_recipe(folder, name)
    launch = LaunchFile.model_validate(values)
    there = (f"run.dir={_RUNS}/{name}",)
    made = render_launch(str(recipe), there, launch, System.KUBERNETES, form=Form.JOB)
    return list(yaml.safe_load_all(made.text))


def _submit(place: _Place, folder: Path, name: str) -> None:
    place.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(_job(folder, name)))


def _until(place: _Place, job: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        if "Failed" in place.conditions(job) or time.monotonic() > deadline:
            said = [_log(place, pod["metadata"]["name"])[-1500:] for pod in place.pods(job)]
            raise RuntimeError("\n".join([str(place.conditions(job)), *said]))
        time.sleep(0.5)


def _log(place: _Place, pod: str) -> str:
    return place.kubectl("logs", pod, check=False)


def _reached(place: _Place, job: str) -> int:
    pod = place.running(job).get(0)
    if pod is None:
        return 0
    code = _STEP.format(log=f"{_RUNS}/{job}/metrics.jsonl")
    said = place.kubectl("exec", pod, "--", "python3", "-c", code, check=False)
    return int(said) if said.strip().isdigit() else 0


def _anew(place: _Place, before: dict[int, str]) -> bool:
    """Whether both pods are new ones, and go on."""
    now = place.running("lost")
    return len(now) == 2 and not set(now.values()) & set(before.values()) and _went_on(place) > 0


def _went_on(place: _Place) -> int:
    pod = place.running("lost").get(0)
    found = re.findall(r"goes on after step ([\d,]+)", _log(place, pod) if pod else "")
    return int(found[-1].replace(",", "")) if found else 0


def _difference(place: _Place, folder: Path) -> float:
    """Largest |dW|, found in a pod that sees both."""
    job = _job(folder, "compared")[-1]
    job["spec"] |= {"completions": 1, "parallelism": 1}
    container = job["spec"]["template"]["spec"]["containers"][0]
    container |= {"command": ["python3", "-c"], "args": [_COMPARE]}
    place.kubectl("apply", "-f", "-", given=yaml.safe_dump(job))
    _until(place, "compared", lambda: "Complete" in place.conditions("compared"))
    return float(_log(place, place.pods("compared")[0]["metadata"]["name"]))


BARS = (
    {"kubernetes_kills": (">=", TIMES), "kubernetes_max_abs_dw": ("<=", 0.0)}
    if _asked() is None
    else {}
)
