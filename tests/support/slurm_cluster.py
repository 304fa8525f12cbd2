"""Slurm on one machine: munge, the controller and one node, in a folder, while they are needed.

    with SlurmCluster(folder) as slurm:
        number = slurm.run("sbatch", "--parsable", "job.sbatch").strip()

It needs root and Debian's ``slurm-wlm`` and ``munge``; :func:`missing` says what is not there.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["SlurmCluster", "missing"]

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
_SECONDS = 60  # in which it is up, however busy the machine is


def missing() -> str | None:
    """Why there can be no cluster here; None: there can."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)}: not installed (Debian: slurm-wlm, munge)"
    return "only root may start Slurm's daemons" if os.geteuid() else None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class SlurmCluster:
    """Args:
    folder: of state, logs and keys; its path is to be short, as sockets' are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self.env = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MUNGE_SOCKET": str(folder / "munge.socket"),
        }

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("state", "spool"):
            (self.folder / name).mkdir(exist_ok=True)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        (self.folder / "slurm.conf").write_text(self._conf())
        try:
            place = self.folder
            self._start(
                *("munged", "--foreground", "--force", f"--key-file={key}"),
                *(f"--socket={place}/munge.socket", f"--pid-file={place}/munge.pid"),
                *(f"--log-file={place}/munge.log", f"--seed-file={place}/munge.seed"),
            )
            self._start("slurmctld", "-D", "-i", "-f", f"{place}/slurm.conf")
            self._start("slurmd", "-D", "-f", f"{place}/slurm.conf", "-N", "one")
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if len(self._running) > 1:
            subprocess.run(
                ["scancel", "--full", "--user=root"], env=self.env, check=False, timeout=30
            )
            time.sleep(1)
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *words: str, folder: Path | None = None) -> str:
        """One of Slurm's programs; what it wrote."""
        done = subprocess.run(
            words, env=self.env, cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def state(self, job: str) -> dict[str, str]:
        """What ``scontrol show job`` says, by key (``JobState``, ``ExitCode``, ``Restarts``)."""
        text = self.run("scontrol", "show", "job", "--oneliner", job)
        pairs = (word.partition("=") for word in text.split())
        return {key: value for key, _, value in pairs}

    def _start(self, *words: str) -> None:
        with (self.folder / f"{words[0]}.out").open("wb") as log:
            self._running.append(
                subprocess.Popen(words, env=self.env, stdout=log, stderr=subprocess.STDOUT)
            )
        time.sleep(0.5)

    def _wait(self) -> None:
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            for process in self._running:
                if process.poll() is not None:
                    said = (self.folder / f"{process.args[0]}.out").read_text()  # type: ignore[index]
                    raise RuntimeError(f"{process.args}: ended: {said[-2000:]}")
            shown = subprocess.run(
                ["sinfo", "-h", "-o", "%T"], env=self.env, capture_output=True, text=True
            )
            if shown.stdout.strip() in ("idle", "mixed", "allocated"):
                return
            time.sleep(0.3)
        raise RuntimeError(f"no node is idle: {shown.stdout} {shown.stderr}")

    def _conf(self) -> str:
        place = self.folder
        values = {
            "ClusterName": "test",
            "SlurmctldHost": f"{socket.gethostname()}(127.0.0.1)",
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "SlurmctldPort": _free_port(),
            "AuthType": "auth/munge",
            # a job that is put back waits for as long as its credentials last
            "AuthInfo": f"socket={place}/munge.socket,cred_expire=5",
            "CredType": "cred/munge",
            "StateSaveLocation": f"{place}/state",
            "SlurmdSpoolDir": f"{place}/spool",
            "SlurmctldPidFile": f"{place}/slurmctld.pid",
            "SlurmdPidFile": f"{place}/slurmd.pid",
            "SlurmctldLogFile": f"{place}/slurmctld.log",
            "SlurmdLogFile": f"{place}/slurmd.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "DefMemPerCPU": 1000,  # MB; else a job has the whole node
            "SchedulerParameters": "batch_sched_delay=0,sched_interval=2",
            "ReturnToService": 2,
            "KillWait": 30,
            "SlurmdParameters": "config_overrides",
        }
        node = f"NodeName=one NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 "
        node += f"Port={_free_port()} CPUs=4 RealMemory=4000 State=UNKNOWN"
        lines = [f"{key}={value}" for key, value in values.items()]
        lines += [node, "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP"]
        return "\n".join(lines) + "\n"
