"""A cluster that may be used: Helm's SDK, kubectl, and clients that run inside it."""

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import helm_python as helm

__all__ = ["Cluster", "Load", "Refused"]

CHART = Path(__file__).resolve().parents[2] / "charts" / "ptft"
LOAD = Path(__file__).with_name("load.py").read_text()
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
USER = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
CLAIM = "models"


class Refused(Exception):  # noqa: N818 (what the test waits for)
    """Helm refused an upgrade; the message holds what a failed pod said last."""


class Load:
    """What clients saw.

    Attributes:
        found: what ``load.py`` printed.
    """

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    @property
    def failed(self) -> int:
        """Requests without an answer."""
        return int(self.found["failed"])

    @property
    def requests(self) -> int:
        """All of them."""
        return int(self.found["requests"])


class Cluster:
    """A namespace of its own in it.

    Args:
        namespace: made, and deleted at the end.
        image: of the service, ``repository:tag``, which the nodes have or can pull.
    """

    def __init__(self, namespace: str, image: str) -> None:
        self.namespace = namespace
        self.image = image
        self._helm = helm.Config(namespace=namespace)
        self._loads = 0

    def kubectl(self, *words: str, given: bytes | None = None, check: bool = True) -> str:
        """Run it in the namespace; its output."""
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *words],
            input=given,
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode()

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Make objects, or change them."""
        whole = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "-f", "-", given=json.dumps(whole).encode())

    def pods(self, component: str = "server") -> list[dict[str, Any]]:
        """Those of a component that are not about to go."""
        selector = f"app.kubernetes.io/component={component}"
        found = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, component: str = "server") -> list[str]:
        """Names of the pods that are Ready."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods(component)
            if any(
                one["type"] == "Ready" and one["status"] == "True"
                for one in pod["status"].get("conditions", ())
            )
        ]

    def ages(self) -> dict[str, str]:
        """Name of each pod of the service -> when it was made, and how often it was restarted."""
        return {
            pod["metadata"]["name"]: pod["metadata"]["creationTimestamp"]
            + "".join(f" {one['restartCount']}" for one in pod["status"]["containerStatuses"])
            for pod in self.pods()
        }

    def release(self, values: Mapping[str, Any], *, wait: bool = True, seconds: int = 280) -> float:
        """Install or upgrade; seconds until Helm and the rollout were done.

        Raises:
            Refused: a hook failed, or a template refused the values.
        """
        began = time.monotonic()
        exists = any(one["name"] == "ptft" for one in self._helm.list())
        given = {"timeout": seconds, "wait": "watcher" if wait else "hookOnly"}
        act = self._helm.upgrade if exists else self._helm.install
        try:
            act(CHART, "ptft", dict(values), **given)
        except helm.HelmError as error:
            said = [self.last_words(component) for component in ("cache", "gate")]
            raise Refused("\n".join([str(error), *said])) from None
        return time.monotonic() - began

    def test(self, seconds: int = 200) -> str:
        """``helm test``; what its pods said.

        Raises:
            Refused: one failed.
        """
        try:
            return str(self._helm.test("ptft", timeout=seconds, logs=True)["logs"])
        except helm.HelmError as error:
            raise Refused(f"{error}\n{self.last_words('test')}") from None

    def uninstall(self) -> None:
        """Take the release away, and wait until its pods are gone."""
        self._helm.uninstall("ptft")
        until(lambda: not self.pods() and not self.pods("canary"), 90)

    def roll_back(self, revision: int) -> None:
        """Back to an earlier revision of the release, and wait until its pods are there."""
        self._helm.rollback("ptft", version=revision, timeout=280, wait="watcher")

    def revision(self) -> int:
        """The number of the release that is there."""
        (found,) = (one for one in self._helm.list() if one["name"] == "ptft")
        return int(found["revision"])

    def last_words(self, component: str = "gate") -> str:
        """What failed pods said last, as ``kubectl describe`` shows it."""
        said = []
        for pod in self.pods(component):
            states = pod["status"]
            for one in states.get("initContainerStatuses", []) + states.get(
                "containerStatuses", []
            ):
                ended = one["state"].get("terminated")
                if ended and ended["exitCode"]:
                    lasted = f"{ended['startedAt']} to {ended['finishedAt']}"
                    said.append(f"{lasted}: {ended.get('message', '')}")
        return "\n".join(said)

    def runs(self, name: str, command: list[str], **more: Any) -> dict[str, Any]:
        """A pod of the service's image that runs something else."""
        container = {
            "name": "main",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            "securityContext": RESTRICTED,
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *more.get("mounts", ())],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "securityContext": {**USER, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [container],
                "volumes": [{"name": "tmp", "emptyDir": {}}, *more.get("volumes", ())],
            },
        }

    def ended(self, job: str, seconds: float) -> dict[str, Any]:
        """Wait until a Job is over; its status."""

        def status() -> dict[str, Any]:
            found = json.loads(self.kubectl("get", "job", job, "-o", "json"))
            return dict(found.get("status", {}))

        def over() -> bool:
            ends = ("Complete", "Failed")
            return any(one["type"] in ends for one in status().get("conditions", ()))

        until(over, seconds)
        return status()

    def put(self, folders: Mapping[str, Path], claim_name: str = CLAIM) -> None:
        """Copy folders onto a claim, each in place of what had its name."""
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim_name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        volume = {"name": "models", "persistentVolumeClaim": {"claimName": claim_name}}
        mount = {"name": "models", "mountPath": "/models"}
        sleep = ["python", "-c", "import time; time.sleep(3600)"]
        self.apply(claim, self.runs("loader", sleep, volumes=[volume], mounts=[mount]))
        self.kubectl("wait", "--for=condition=Ready", "pod/loader", "--timeout=120s")
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name, folder in folders.items():
                archive.add(folder, arcname=name)
        names = sorted(folders)
        code = "import shutil,sys,tarfile\n"
        code += f"for name in {names!r}: shutil.rmtree('/models/'+name, ignore_errors=True)\n"
        code += "tarfile.open(fileobj=sys.stdin.buffer,mode='r|').extractall('/models')"
        unpack = ["exec", "-i", "loader", "--", "python", "-c", code]
        self.kubectl(*unpack, given=stream.getvalue())
        self.kubectl("delete", "pod", "loader", "--wait=true")

    @contextmanager
    def load(
        self,
        clients: int = 10,
        *,
        url: str = "http://ptft",
        pause: float = 0.05,
        keep: int | None = None,
        headers: Mapping[str, str] | None = None,
        asked: str | None = None,
    ) -> Iterator[Load]:
        """Clients that ask meanwhile; what they saw is there afterwards.

        Args:
            pause: seconds between the requests of a client.
            keep: so many keep their connection; by default half of them.
            headers: of each request, besides the type of its body.
            asked: a ConfigMap with what they ask, ``asked.jsonl`` as ``load.py`` reads it.
        """
        self._loads += 1
        name = f"load-{self._loads}"
        kept = clients // 2 if keep is None else keep
        command = ["python", "-c", LOAD, url, str(clients), "1800", str(pause), str(kept)]
        command.append(json.dumps(dict(headers or {})))
        more = {}
        if asked is not None:
            command.append("/asked/asked.jsonl")
            more["volumes"] = [{"name": "asked", "configMap": {"name": asked}}]
            more["mounts"] = [{"name": "asked", "mountPath": "/asked"}]
        self.apply(self.runs(name, command, **more))
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
        time.sleep(2)
        seen = Load()
        try:
            yield seen
            time.sleep(2)
        finally:
            self.kubectl("exec", name, "--", "python", "-c", "open('/tmp/stop', 'w')")
            done = "--for=jsonpath={.status.phase}=Succeeded"
            self.kubectl("wait", done, f"pod/{name}", "--timeout=60s")
            seen.found = json.loads(self.kubectl("logs", name))
            self.kubectl("delete", "pod", name, "--wait=false")

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One request to the release, from within a pod of it; its answer."""
        code = (
            "import sys,urllib.request as u\n"
            f"asked=u.Request('http://ptft{path}',sys.stdin.buffer.read(),"
            "{'content-type':'application/json'})\n"
            "sys.stdout.write(u.urlopen(asked,timeout=30).read().decode())"
        )
        asking = ["exec", "-i", self.ready()[0], "-c", "server", "--", "python", "-c", code]
        return dict(json.loads(self.kubectl(*asking, given=json.dumps(body).encode())))

    def close(self) -> None:
        """Delete the namespace."""
        self.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)
        self._helm.close()


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for what is to come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.5)
