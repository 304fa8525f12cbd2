"""Two machines on one: network namespaces with a link between them that can be cut.

    with two_nodes() as nodes, Warm(folder) as warm:
        nodes[0].rank(warm, 0, 2, "train", recipe, samples=samples, hold=hold)
        nodes.link("down")

``python -m tests.support.two_nodes NODE ENVIRONMENT WORD ...`` is ``ptft`` on one of them.
"""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support.warm import Child, Warm

__all__ = ["HEAD", "HELD_AT", "Node", "TwoNodes", "UnmadeError", "read_samples", "two_nodes"]

HEAD = "10.83.17.1"
"""The address of the first, whom the other calls."""
HELD_AT = 5
"""Steps, of those of a start, after which it is held."""
_OTHER, _PORT = "10.83.17.2", 29_417
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of sched.h
_WATCHED = ("PTFT_TEST_SAMPLES", "PTFT_TEST_HOLD")


class UnmadeError(Exception):
    """Network namespaces cannot be made here, and why."""


@dataclass(frozen=True)
class Node:
    """One of the two, by its network namespace, its end of the link and its address there."""

    name: str
    interface: str
    address: str

    def command(self, *words: str) -> list[str]:
        """What runs there."""
        return ["ip", "netns", "exec", self.name, *words]

    def environment(self) -> dict[str, str]:
        """Of what runs there: gloo is to take the link."""
        return {"GLOO_SOCKET_IFNAME": self.interface, "OMP_NUM_THREADS": "1"}

    def rank(
        self, warm: Warm, rank: int, size: int, *words: object, samples: Path, hold: Path
    ) -> Child:
        """``ptft`` as one of ``size`` ranks, each of which has a node of its own.

        Args:
            samples: a folder for what each rank is given, see :func:`read_samples`.
            hold: a file; while it is there, no rank takes more than :data:`HELD_AT` steps.
        """
        told = {
            **self.environment(),
            **{"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0"},
            **{"MASTER_ADDR": HEAD, "MASTER_PORT": str(_PORT), "GROUP_WORLD_SIZE": str(size)},
        }
        told |= dict(zip(_WATCHED, map(str, (samples, hold)), strict=True))
        return warm.module("tests.support.two_nodes", self.name, json.dumps(told), *words)


class TwoNodes(tuple[Node, Node]):
    """Both."""

    def link(self, state: Literal["up", "down"]) -> None:
        """Cut the link between them, or bring it back. No program of theirs is told."""
        _ip(*self[1].command("ip", "link", "set", self[1].interface, state)[1:])


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Two namespaces with a link and no way out, until the end of the block.

    Raises:
        UnmadeError: they cannot be made here.
    """
    if os.geteuid() != 0:
        raise UnmadeError("network namespaces take root")
    nodes = TwoNodes(
        Node(f"ptft-{os.getpid()}-{number}", f"ptft{number}", address)
        for number, address in enumerate((HEAD, _OTHER))
    )
    made: list[Node] = []
    try:
        for node in nodes:
            _ip("netns", "add", node.name)
            made.append(node)
        first, second = nodes
        _ip(
            *("link", "add", first.interface, "netns", first.name, "type", "veth"),
            *("peer", "name", second.interface, "netns", second.name),
        )
        for node in nodes:
            inside = ("-n", node.name)
            _ip(*inside, "address", "add", f"{node.address}/24", "dev", node.interface)
            _ip(*inside, "link", "set", "lo", "up")
            _ip(*inside, "link", "set", node.interface, "up")
        yield nodes
    finally:
        for node in made:
            _ip("netns", "delete", node.name)


def read_samples(folder: Path) -> dict[int, int]:
    """What the steps were given, whatever rank was: a digest of each sample by its position in the
    run. One that was replayed is there once, and has to be what it was.

    Raises:
        ValueError: it was not.
    """
    found: dict[int, int] = {}
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            position, digests = json.loads(line)
            for number, digest in enumerate(digests, position):
                if found.setdefault(number, digest) != digest:
                    raise ValueError(f"sample {number} was another one the second time")
    return found


def _ip(*words: str) -> None:
    quiet: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    try:
        done = subprocess.run(["ip", *words], **quiet)
    except FileNotFoundError:
        raise UnmadeError("iproute2 is not installed") from None
    if done.returncode:
        raise UnmadeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _enter(name: str) -> None:
    """Take this process, of one thread, into a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", name).open() as place:
        if libc.setns(place.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _watch(samples: Path, hold: Path) -> None:
    """Write down what this rank's steps are given, on its way there, and wait at step ``HELD_AT``
    for as long as there is a file."""
    from ptft.train import loop as steps

    plain, rank = steps.batches, int(os.environ["RANK"])
    samples.mkdir(parents=True, exist_ok=True)

    def batches(*args: Any, start: int, size: int, **kwargs: Any) -> Any:
        for number, batch in enumerate(plain(*args, start=start, size=size, **kwargs)):
            while number == HELD_AT and hold.exists():
                time.sleep(0.01)
            digests = [
                zlib.crc32(batch.images[row].numpy().tobytes(), zlib.crc32(name.encode()))
                for row, name in enumerate(batch.names)
            ]
            with (samples / f"{os.getpid()}").open("a") as stream:
                line = [start + number * size + rank * len(digests), digests]
                stream.write(json.dumps(line) + "\n")
            yield batch

    steps.batches = batches  # type: ignore[assignment]


if __name__ == "__main__":
    _enter(sys.argv[1])
    os.environ |= json.loads(sys.argv[2])
    _watch(*(Path(os.environ[name]) for name in _WATCHED))
    from ptft.cli.main import main

    sys.argv[1:3] = []
    main()
