"""What happens to pods and nodes: with two pods no request is lost."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, until
from tests.e2e.figures import record


@pytest.fixture
def two(placed: Cluster, values: dict[str, Any]) -> Cluster:
    """Two pods that are ready."""
    placed.release(values)
    until(lambda: len(placed.ready()) == 2, 120)
    return placed


def recovered(cluster: Cluster, gone: str) -> None:
    """Wait until there are two again, without the one that went."""
    until(lambda: len(cluster.ready()) == 2 and gone not in cluster.ready(), 120)


def test_a_deleted_pod(two: Cluster) -> None:
    with two.load() as seen:
        gone = two.ready()[0]
        two.kubectl("delete", "pod", gone)
        recovered(two, gone)
    record("deleted pod", seen)
    assert seen.failed == 0, seen.found


def test_an_eviction(two: Cluster) -> None:
    with two.load() as seen:
        gone = two.ready()[0]
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": gone, "namespace": two.namespace},
        }
        path = f"/api/v1/namespaces/{two.namespace}/pods/{gone}/eviction"
        two.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(body).encode())
        recovered(two, gone)
    record("eviction", seen)
    assert seen.failed == 0, seen.found


def test_a_drained_node(two: Cluster) -> None:
    """On one node the second pod stays until the first is back, which is until `uncordon`."""
    node = two.pods()[0]["spec"]["nodeName"]
    selector = "app.kubernetes.io/component=server"
    drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data"]
    with two.load() as seen:
        try:
            two.kubectl(*drain, f"--pod-selector={selector}", "--timeout=25s", check=False)
        finally:
            two.kubectl("uncordon", node)
        until(lambda: len(two.ready()) == 2, 120)
    record("drain", seen)
    assert seen.failed == 0, seen.found


def test_a_killed_worker(two: Cluster) -> None:
    """Those that it held are lost, one a client at most. What its pod gets until it leaves the
    Service waits for the next worker: nobody is told 503, and nobody asks twice."""
    code = (
        "import os,pathlib\n"
        "for one in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
        "    words = one.read_bytes()\n"
        "    if b'worker' in words and int(one.parent.name) != os.getpid() and b'-c' not in "
        "words.split(b'\\0'):\n"
        "        os.kill(int(one.parent.name), 9); print(one.parent.name)\n"
    )
    with two.load() as seen:
        time.sleep(3)
        pod = two.ready()[0]
        killed = two.kubectl("exec", pod, "-c", "server", "--", "python", "-c", code).split()
        until(lambda: len(two.ready()) == 2, 120)
        time.sleep(5)
    statuses = seen.found["statuses"]
    record("killed worker", seen, killed=len(killed), statuses=statuses)
    assert killed
    assert "503" not in statuses
    assert seen.failed <= 10, seen.found


@pytest.mark.parametrize("program", ["kubelet", "proxy", "containerd"])
def test_a_killed_program_of_the_node(two: Cluster, program: str) -> None:
    """Where the programs of the node run on this machine: PTFT_E2E_PIDS names their folder."""
    place = os.environ.get("PTFT_E2E_PIDS")
    if place is None:
        pytest.skip("PTFT_E2E_PIDS is not set: the node's programs are not on this machine")
    file = next((one for one in Path(place).iterdir() if program in one.name), None)
    assert file is not None, f"no {program} in {place}"
    pid = int(file.read_text())
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    variables = dict(
        one.split(b"=", 1) for one in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if one
    )
    folder, mine = Path(f"/proc/{pid}/cwd").resolve(), Path("/proc/self/ns/net").readlink()
    assert Path(f"/proc/{pid}/ns/net").readlink() == mine, "run the tests in the node's network"
    log = Path(f"/proc/{pid}/fd/1").resolve()
    with two.load() as seen:
        os.kill(pid, signal.SIGKILL)
        time.sleep(10)
        start = ["bash", "-c", 'log=$1; shift; "$@" >>"$log" 2>&1 & echo $!', "start", log, *words]
        again = subprocess.run(
            start,
            env=variables,
            cwd=folder,
            stdout=subprocess.PIPE,
            start_new_session=True,
            check=True,
        )
        file.write_bytes(again.stdout)
        time.sleep(15)
        until(lambda: len(two.ready()) == 2, 120)
    record(f"killed {program}", seen)
    assert seen.failed == 0, seen.found
