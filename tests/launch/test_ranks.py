"""torchrun's exit code as the ranks': what a launcher tells "start again" from "failed" by."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptft.launch.ranks import run_ranks
from tests.support.two_nodes import HEAD, Node, UnmadeError, two_nodes

RANK = """
import contextlib, os, signal, sys, time
from pathlib import Path
way = sys.argv[1]
if way == "signal":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit(75))
    Path(sys.argv[2], os.environ["RANK"]).touch()
    time.sleep(120)
if way == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if way == "alone":  # until another machine comes
    if os.environ["WORLD_SIZE"] == "1":
        Path(sys.argv[2], "alone").touch()
        time.sleep(600)
    sys.exit(0)
if way == "failed and lost":  # the first says so once the second has ended
    place = Path(sys.argv[2], "second")
    if os.environ["RANK"] == "1":
        place.with_name("part").write_text(str(os.getpid()))
        place.with_name("part").rename(place)
        os._exit(5)
    while not place.exists():
        time.sleep(0.01)
    stat = Path("/proc", place.read_text(), "stat")
    with contextlib.suppress(OSError):
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    sys.exit(76)
sys.exit(int(way))
"""


def options(folder: Path, way: str) -> list[str]:
    script = folder / "rank.py"
    script.write_text(RANK)
    words = ["--standalone", "--nproc-per-node", "2", "--shutdown-timeout", "30"]
    return [*words, "--signals-to-handle", "SIGTERM,SIGUSR2", str(script), way, str(folder)]


@pytest.mark.parametrize(
    ("way", "code"), [("0", 0), ("75", 75), ("76", 76), ("failed and lost", 5), ("killed", 137)]
)
def test_the_code_is_that_of_a_rank(way: str, code: int, tmp_path: Path) -> None:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        assert run_ranks(options(tmp_path, way)) == code
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_machines_that_do_not_meet_are_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--nproc-per-node", "1", "--nnodes", "2", "--node-rank", "0", "--master-addr"]
    words += ["127.0.0.1", "--master-port", "0", "--rdzv-conf", "timeout=1", "-m", "nothing"]
    assert run_ranks(words) == 1
    assert "ptft: the machines of the run did not meet: Timed out" in capfd.readouterr().err


def test_a_signal_reaches_the_ranks_and_means_start_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ptft.launch.ranks", *options(tmp_path, "signal")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not all((tmp_path / rank).exists() for rank in "01"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR2)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "the ranks were stopped by SIGUSR2" in said


def test_a_machine_that_comes_later_finds_the_others(tmp_path: Path) -> None:
    """torchrun itself keeps the first one's address to itself, and the second waits in vain."""
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    running: list[subprocess.Popen[bytes]] = []

    def start(node: Node, *, host: bool) -> None:
        words = ["--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "9"]
        words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HEAD}:29500"]
        words += ["--rdzv-conf", f"is_host={int(host)},last_call_timeout=1"]
        words += ["--local-addr", node.address, str(script), "alone", str(tmp_path)]
        command = node.command(sys.executable, "-m", "ptft.launch.ranks", *words)
        running.append(subprocess.Popen(command))

    try:
        with two_nodes() as (first, second):
            try:
                start(first, host=True)
                while not (tmp_path / "alone").exists():
                    assert running[0].poll() is None
                    time.sleep(0.05)
                start(second, host=False)
                assert [process.wait(300) for process in running] == [0, 0]
            finally:
                for process in running:
                    process.kill()
                    process.wait()
    except UnmadeError as error:
        pytest.skip(f"two network namespaces: {error}")
